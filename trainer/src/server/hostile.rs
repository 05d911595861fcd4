//! A real server with two honest clients and a third that is hostile, over loopback, frame by frame.
//! Must not assert on time or sleep: what the third is told says when the next thing can happen.
//!
//! Each case asserts that the third is told what is wrong, that the refusal is counted under its reason, and that the
//! run ends with the bits of the two honest clients alone.
//!
//! | file | one thing |
//! |---|---|
//! | `peer.rs` | the third client: frames on a session, and what the server says to them |
//! | `scene.rs` | the run around it, and what is asserted of it |
//! | `answers.rs` | answers that are no answers: tensors and figures |
//! | `steps.rs` | steps of a Split turn |
//! | `halves.rs` | steps of two halves, where the head is the client's; INT8 |
//! | `places.rs` | messages of another round, epoch, attempt, phase |
//! | `frames.rs` | frames that are no messages |
//! | `doors.rs` | joins, sessions and floods |

mod answers;
mod doors;
mod frames;
mod halves;
mod peer;
mod places;
mod scene;
mod steps;
