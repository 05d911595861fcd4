//! Carries frames from the network to a model thread.
//! Must not look into frames, and must not read ahead of the model thread by more than the channel holds.

use std::{error::Error as _, time::Duration};

use tokio::{sync::mpsc::Sender, time::timeout};
use tokio_stream::StreamExt;
use tonic::{Code, Status, Streaming};

use super::link::FrameOrEnd;
use crate::protocol::Frame;

/// Carries frames until either side ends the session. Where this side does, the stream is kept for `linger`, or until
/// the other side ends it too: to drop it is to reset it, and with it the frames that are still on their way out.
pub(super) async fn pump(
    mut frames: Streaming<Frame>,
    link: Sender<FrameOrEnd>,
    linger: Duration,
    explain: fn(&Status) -> Status,
) {
    loop {
        let next = tokio::select! {
            next = frames.next() => next,
            () = link.closed() => break,
        };
        let Some(next) = next else { return };
        let ended = next.is_err();
        if link.send(next.map_err(|status| explain(&status))).await.is_err() {
            break;
        }
        if ended {
            return;
        }
    }
    // Whether it ended or time did, there is nothing left to do.
    let _ = timeout(linger, async { while let Some(Ok(_)) = frames.next().await {} }).await;
}

/// The status with a sentence a person can use: the peer's own, or what broke the connection.
pub(super) fn explain(status: &Status) -> Status {
    match status.source() {
        None => status.clone(),
        Some(mut cause) => {
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            Status::new(Code::Unavailable, format!("the connection broke: {cause}"))
        }
    }
}

/// As [`explain`]. A client ends a session without a status: one that no broken connection caused is our own decoder's,
/// of a frame that is none.
pub(super) fn explain_to_server(status: &Status) -> Status {
    match (status.code(), status.source()) {
        (Code::OutOfRange | Code::Internal, None) => Status::data_loss(status.message()),
        (_, _) => explain(status),
    }
}
