//! Frames that are no messages: lengths that lie, headers without end, words that nobody knows.
//! Must not cost the server more memory than has arrived.

use prost::Message as _;

use super::{
    peer::{Peer, RUN, announcement, join},
    scene::{FEDLLM, alone, assert_refused, play},
};
use crate::{
    protocol::{self, Frame, Header, TensorHeader, frame::Body},
    refusal::RefusalReason,
    wire::{CHUNK_BYTES, Message, PROTOCOL_VERSION, Subject, encode},
};

/// The third, asked, sends what `offends` sends; its session ends with a sentence, and the run goes on without it.
fn refuses(reason: RefusalReason, says: &str, offends: impl FnOnce(&mut Peer, &Message) + Send) {
    let ended = play(FEDLLM, |third| {
        third.join();
        let ask = third.wait_for(Subject::Begin);
        offends(third, &ask);
        let told = third.refusal();
        assert!(told.contains(says), "{told:?} does not say {says:?}");
    });
    assert_refused(&ended, &[reason]);
    assert!(ended.adapter() == alone(FEDLLM), "what was refused changed the global adapter");
}

macro_rules! frames {
    ($($name:ident: $reason:ident, $says:literal, $offends:expr;)+) => {
        $(#[test]
        fn $name() {
            refuses(RefusalReason::$reason, $says, $offends);
        })+
    };
}

/// The header of an upload with one tensor of bytes, to be spoilt.
fn header(shape: &[i64]) -> Header {
    let (kind, element) = (protocol::Kind::Adapter.into(), protocol::Element::U8.into());
    Header {
        version: PROTOCOL_VERSION,
        run: RUN.to_owned(),
        subject: protocol::Subject::Upload.into(),
        round: 1,
        epoch: 1,
        attempt: 1,
        tensors: vec![TensorHeader { name: "t".to_owned(), kind, element, shape: shape.to_vec() }],
        ..Header::default()
    }
}

fn tensors(count: usize, shape: &[i64]) -> Header {
    let one = header(shape);
    Header { tensors: vec![one.tensors[0].clone(); count], ..one }
}

frames! {
    a_chunk_stream_without_end_is_refused: Length, "a chunk has 1048576 bytes, expected 8: it is too long",
        |third, _| {
            third.send_header(&header(&[8]));
            third.push(Frame { body: Some(Body::Chunk(vec![0; CHUNK_BYTES].into())) });
            third.push(Frame { body: Some(Body::Chunk(vec![0; CHUNK_BYTES].into())) });
        };
    a_chunk_longer_than_announced_is_refused: Length, "a chunk has 9 bytes, expected 8: it is too long",
        |third, _| {
            third.send_header(&header(&[8]));
            third.send_chunk(vec![0; 9]);
        };
    a_chunk_shorter_than_announced_is_refused: Length, "a chunk has 7 bytes, expected 8: it is too short",
        |third, _| {
            third.send_header(&header(&[8]));
            third.send_chunk(vec![0; 7]);
        };
    an_empty_chunk_is_refused: Length, "a chunk has 0 bytes, expected 8: it is too short",
        |third, _| {
            third.send_header(&header(&[8]));
            third.send_chunk(Vec::new());
        };
    a_message_that_is_never_finished_is_refused: Length, "the session ended while 8 bytes of a message were missing",
        |third, _| {
            third.send_header(&header(&[8]));
            third.end();
        };
    a_chunk_before_a_header_is_refused: Protocol, "a chunk of 8 bytes came where a header was expected",
        |third, _| third.send_chunk(vec![0; 8]);
    a_header_within_a_message_is_refused: Protocol, "a new header came while 8 bytes of the message before were missing",
        |third, _| {
            third.send_header(&header(&[8]));
            third.send_header(&header(&[8]));
        };
    a_header_without_end_is_refused: TooLarge, "the header of the message has 1000000 bytes, at most",
        |third, _| third.push(Frame { body: Some(Body::Header(vec![0; 1_000_000].into())) });
    a_frame_without_end_is_refused: Protocol, "a frame cannot be read: ",
        |third, _| third.push(Frame { body: Some(Body::Header(vec![0; 8 << 20].into())) });
    a_header_that_is_none_is_refused: Protocol, "the header of the message cannot be read",
        |third, _| third.push(Frame { body: Some(Body::Header(vec![0xff; 100].into())) });
    a_frame_of_nothing_is_refused: Protocol, "a frame holds neither header nor chunk",
        |third, _| third.push(Frame { body: None });
    more_tensors_than_any_answer_has_are_refused: Count, "the message announces 90 tensors, at most",
        |third, _| third.send_header(&tensors(90, &[0]));
    eight_exbibytes_are_refused: TooLarge, "the message announces more than the",
        |third, _| third.send_header(&header(&[i64::MAX]));
    bytes_that_no_number_counts_are_refused: TooLarge, "the message announces more than the",
        |third, _| third.send_header(&tensors(3, &[i64::MAX]));
    one_byte_more_than_any_answer_has_is_refused: TooLarge, "payload bytes that are allowed here",
        |third, ask| third.send_header(&header(&[ask.payload_bytes() as i64 + 1]));
    a_shape_that_no_number_counts_is_refused: Shape, "which no tensor can have",
        |third, _| third.send_header(&header(&[i64::MAX, 2]));
    a_shape_without_end_is_refused: TooLarge, "and 4000 dimensions, at most 256 and 8 are allowed",
        |third, _| third.send_header(&header(&vec![1; 4000]));
    a_name_without_end_is_refused: TooLarge, "has a name of 4000 bytes and",
        |third, _| {
            let mut odd = header(&[8]);
            odd.tensors[0].name = "x".repeat(4000);
            third.send_header(&odd);
        };
    a_negative_shape_is_refused: Shape, "has the shape [-8], which no tensor can have",
        |third, _| third.send_header(&header(&[-8]));
    a_kind_that_is_none_is_refused: Protocol, "tensor \"t\" has the unknown kind 99",
        |third, _| {
            let mut odd = header(&[8]);
            odd.tensors[0].kind = 99;
            third.send_header(&odd);
        };
    an_element_that_is_none_is_refused: Element, "tensor \"t\" has the unknown element type 99",
        |third, _| {
            let mut odd = header(&[8]);
            odd.tensors[0].element = 99;
            third.send_header(&odd);
        };
    a_subject_that_is_none_is_refused: Protocol, "the message has the unknown subject 99",
        |third, _| third.send_header(&Header { subject: 99, ..tensors(0, &[]) });
    fields_over_64_kib_are_refused: TooLarge, "the fields of the message have 65537 bytes, at most 65536 are allowed",
        |third, _| third.send_header(&Header { fields: vec![b' '; (64 << 10) + 1].into(), ..tensors(0, &[]) });
    fields_that_are_no_json_are_refused: Protocol, "the fields of the message are not JSON",
        |third, _| third.send_header(&Header { fields: b"{\"trainLoss\": NaN}".to_vec().into(), ..tensors(0, &[]) });
    fields_deeper_than_any_are_refused: Protocol, "the fields of the message are not JSON",
        |third, _| third.send_header(&Header { fields: vec![b'['; 60_000].into(), ..tensors(0, &[]) });
    a_message_of_another_run_is_refused: Run, "the message belongs to run \"other\", this is run \"tiny\"",
        |third, _| third.send_header(&Header { run: "other".to_owned(), ..header(&[8]) });
    a_message_of_another_version_is_refused: Protocol, "the peer speaks version 99 of the protocol",
        |third, _| third.send_header(&Header { version: 99, ..header(&[8]) });
}

/// A first message that is refused: its sender has not said who it is, and goes by its address.
fn refuses_at_the_door(reason: RefusalReason, says: &str, offends: impl FnOnce(&mut Peer) + Send) {
    let ended = play(FEDLLM, |third| {
        offends(third);
        let told = third.refusal();
        assert!(told.contains(says), "{told:?} does not say {says:?}");
        // So that nobody waits for it.
        *third = third.again();
        third.join();
        third.give_up();
    });
    assert_eq!(ended.refused(), [("127.0.0.1", reason)]);
    assert!(ended.adapter() == alone(FEDLLM));
}

fn join_of(spoil: impl FnOnce(&mut Header)) -> Frame {
    let first = encode(join(&announcement()), RUN).unwrap().next();
    let Some(Frame { body: Some(Body::Header(bytes)) }) = first else { panic!("a join is a header") };
    let mut header = Header::decode(bytes).unwrap();
    spoil(&mut header);
    Frame { body: Some(Body::Header(header.encode_to_vec().into())) }
}

#[test]
fn a_join_of_another_run_is_refused() {
    let says = "the message belongs to run \"other\", this is run \"tiny\"; spec, model and tokenizer must be the same";
    refuses_at_the_door(RefusalReason::Run, says, |third| third.push(join_of(|join| join.run = "other".to_owned())));
}

#[test]
fn a_join_of_another_version_is_refused() {
    let says = "the peer speaks version 2 of the protocol, this program version 1";
    refuses_at_the_door(RefusalReason::Protocol, says, |third| third.push(join_of(|join| join.version = 2)));
}

#[test]
fn a_session_that_does_not_begin_with_a_join_is_refused() {
    let says = "upload came where join was expected";
    refuses_at_the_door(RefusalReason::Phase, says, |third| third.send(Message::new(Subject::Upload, 1)));
}

#[test]
fn a_join_with_tensors_is_refused() {
    let says = "the message announces 1 tensors, at most 0 are allowed here";
    refuses_at_the_door(RefusalReason::Count, says, |third| third.send_header(&header(&[8])));
}

#[test]
fn a_join_that_is_no_announcement_is_refused() {
    let says = "a join cannot be read: ";
    let odd = serde_json::json!({ "client": ["silo/2"], "examples": -1 });
    refuses_at_the_door(RefusalReason::Protocol, says, |third| third.send(join(&odd)));
}

#[test]
fn a_client_that_is_not_of_the_run_is_refused() {
    let says = "client silo/9 is not of this run, whose clients are silo/0, silo/1, silo/2";
    let mut stranger = announcement();
    stranger["client"] = "silo/9".into();
    refuses_at_the_door(RefusalReason::Identity, says, |third| third.send(join(&stranger)));
}
