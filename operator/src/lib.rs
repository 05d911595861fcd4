//! The operator: makes the pods that a `FederatedFineTune` asks for, and says how the run stands.
//! Must not link libtorch: training is the trainer's.
//!
//! | module | one thing |
//! |---|---|
//! | `controller` | one reconcile: observe, validate, build, apply, status |

pub mod controller;
