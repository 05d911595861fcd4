//! The operator: makes the pods that a `FederatedFineTune` asks for, and says how the run stands.
//! Must not link libtorch: training is the trainer's.
//!
//! | module | one thing |
//! |---|---|
//! | `authority` | the CA and the certificates of a run |
//! | `controller` | one reconcile: observe, validate, build, apply, status |

pub mod authority;
pub mod controller;
