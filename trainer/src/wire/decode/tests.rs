use serde_json::json;

use super::*;
use crate::wire::encode;

const RUN: &str = "run-a";
const GENEROUS: Limits = Limits { tensors: 16, payload_bytes: 64 << 20 };

/// A tensor of `length` bytes that differ from their neighbours.
fn tensor(name: &str, length: usize) -> WireTensor {
    let bytes = (0..length).map(|index| (index % 251) as u8).collect();
    let shape = vec![length as i64];
    WireTensor { name: name.to_owned(), kind: PayloadKind::Adapter, element: Element::U8, shape, bytes }
}

fn upload(tensors: Vec<WireTensor>) -> Message {
    Message { step: 7, epoch: 2, fields: json!({"examples": 12}), tensors, ..Message::new(Subject::Upload, 3) }
}

fn frames(message: &Message) -> Vec<Frame> {
    encode(message.clone(), RUN).unwrap().collect()
}

fn chunk(length: usize) -> Frame {
    Frame { body: Some(Body::Chunk(vec![0; length].into())) }
}

fn header(header: &Header) -> Frame {
    Frame { body: Some(Body::Header(header.encode_to_vec().into())) }
}

/// The header of a message with one tensor `t` of `shape` bytes, to be spoilt.
fn fair_header(shape: &[i64]) -> Header {
    let (kind, element) = (protocol::Kind::Logits.into(), protocol::Element::U8.into());
    Header {
        version: PROTOCOL_VERSION,
        run: RUN.to_owned(),
        subject: protocol::Subject::Upload.into(),
        round: 1,
        tensors: vec![TensorHeader { name: "t".to_owned(), kind, element, shape: shape.to_vec() }],
        ..Header::default()
    }
}

fn decode(frames: impl IntoIterator<Item = Frame>) -> Result<Option<Message>, WireError> {
    decode_within(GENEROUS, frames)
}

fn decode_within(limits: Limits, frames: impl IntoIterator<Item = Frame>) -> Result<Option<Message>, WireError> {
    let mut decoder = Decoder::new(RUN, limits);
    let mut last = None;
    for frame in frames {
        assert_eq!(last, None, "a message was complete before its last frame");
        last = decoder.push(frame)?;
    }
    Ok(last)
}

fn refusal(frames: impl IntoIterator<Item = Frame>) -> String {
    decode(frames).unwrap_err().to_string()
}

fn chunk_lengths(frames: &[Frame]) -> Vec<usize> {
    let length = |frame: &Frame| match frame.body.as_ref().unwrap() {
        Body::Header(_) => None,
        Body::Chunk(chunk) => Some(chunk.len()),
    };
    frames.iter().filter_map(length).collect()
}

#[test]
fn a_message_without_tensors_is_one_frame() {
    let message = Message { tensors: Vec::new(), ..upload(Vec::new()) };
    assert_eq!(frames(&message).len(), 1);
    assert_eq!(decode(frames(&message)).unwrap(), Some(message));
}

#[test]
fn every_word_and_element_type_comes_back() {
    use PayloadKind::{Activation, ActivationGradient, Adapter, Gradient, Head, Label, Length, Logits};
    use Subject::{
        Begin, Exchange, ExchangeReply, Finish, Join, Recall, Refuse, Replay, Step, StepGradient, StepGradientReply,
        StepReply, Upload, Welcome,
    };
    let kinds = [Adapter, Head, Gradient, Logits, Activation, ActivationGradient, Label, Length];
    let subjects = [
        Join,
        Welcome,
        Begin,
        Step,
        StepReply,
        StepGradient,
        StepGradientReply,
        Upload,
        Exchange,
        ExchangeReply,
        Finish,
        Refuse,
        Recall,
        Replay,
    ];
    for subject in subjects {
        let of = |(index, kind): (usize, &PayloadKind)| {
            let element = Element::ALL[index % Element::ALL.len()];
            let bytes = tensor("", 6 * element.size()).bytes;
            WireTensor { name: format!("t{index}"), kind: *kind, element, shape: vec![2, 3], bytes }
        };
        let message = Message { subject, ..upload(kinds.iter().enumerate().map(of).collect()) };
        assert_eq!(decode(frames(&message)).unwrap(), Some(message));
    }
}

#[test]
fn five_mebibytes_travel_in_chunks_of_one() {
    let message = upload(vec![tensor("t", 5 * CHUNK_BYTES)]);
    assert_eq!(chunk_lengths(&frames(&message)), [CHUNK_BYTES; 5]);
    assert_eq!(decode(frames(&message)).unwrap(), Some(message));
}

#[test]
fn tensors_need_not_end_where_chunks_do() {
    let lengths = [0, 3, CHUNK_BYTES - 5, 1, 0, 4, 2 * CHUNK_BYTES + 17, 0, CHUNK_BYTES - 20, 10, 0];
    let message = upload(lengths.iter().map(|length| tensor(&format!("{length}"), *length)).collect());
    // 4 MiB and 10 bytes in all.
    assert_eq!(chunk_lengths(&frames(&message)), [CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES, 10]);
    assert_eq!(decode(frames(&message)).unwrap(), Some(message));
}

#[test]
fn a_chunk_of_one_tensor_is_its_own_memory_and_not_a_copy() {
    let message = upload(vec![tensor("t", 2 * CHUNK_BYTES)]);
    let sent = frames(&message);
    let Some(Body::Chunk(second)) = &sent[2].body else { panic!("the third frame is a chunk") };
    assert_eq!(second.as_ptr(), message.tensors[0].bytes[CHUNK_BYTES..].as_ptr());
    let small = upload(vec![tensor("t", 100)]);
    let received = decode(frames(&small)).unwrap().unwrap();
    assert_eq!(received.tensors[0].bytes.as_ptr(), small.tensors[0].bytes.as_ptr());
}

#[test]
fn one_decoder_takes_message_after_message() {
    let message = upload(vec![tensor("t", CHUNK_BYTES + 1)]);
    let mut decoder = Decoder::new(RUN, GENEROUS);
    for _ in 0..2 {
        let whole: Vec<_> = frames(&message).into_iter().filter_map(|frame| decoder.push(frame).unwrap()).collect();
        assert_eq!(whole, std::slice::from_ref(&message));
        assert_eq!(decoder.finish(), Ok(()));
    }
}

#[test]
fn a_payload_larger_than_any_memory_is_announced_and_nothing_is_allocated() {
    let limits = Limits { tensors: 1, payload_bytes: u64::MAX };
    let mut decoder = Decoder::new(RUN, limits);
    // More than a process can address: an allocation of it would abort the test.
    assert_eq!(decoder.push(header(&fair_header(&[1 << 60]))), Ok(None));
    assert_eq!(decoder.push(chunk(CHUNK_BYTES)), Ok(None));
    assert_eq!(
        decoder.finish().unwrap_err().to_string(),
        format!("the session ended while {} bytes of a message were missing", (1u64 << 60) - (1 << 20))
    );
}

#[test]
fn another_version_or_run_or_subject_is_refused() {
    let version = Header { version: 9, ..fair_header(&[1]) };
    assert_eq!(refusal([header(&version)]), "the peer speaks version 9 of the protocol, this program version 1");
    let run = Header { run: "b".repeat(100), ..fair_header(&[1]) };
    let quoted = "b".repeat(64);
    let said = format!("the message belongs to run \"{quoted}\", this is run \"run-a\"; spec, model and tokenizer");
    assert!(refusal([header(&run)]).starts_with(&said), "{said}");
    for number in [0, 99, -1] {
        let subject = Header { subject: number, ..fair_header(&[1]) };
        assert_eq!(refusal([header(&subject)]), format!("the message has the unknown subject {number}"));
    }
}

#[test]
fn more_tensors_or_bytes_than_allowed_are_refused() {
    let limits = Limits { tensors: 2, payload_bytes: 100 };
    let three = frames(&upload(vec![tensor("t", 1); 3]));
    assert_eq!(
        decode_within(limits, three).unwrap_err().to_string(),
        "the message announces 3 tensors, at most 2 are allowed here"
    );
    let allowed = frames(&upload(vec![tensor("t", 50); 2]));
    assert!(decode_within(limits, allowed).unwrap().is_some());
    for lengths in [[50, 51], [i64::MAX, i64::MAX]] {
        let tensors = lengths.map(|length| fair_header(&[length]).tensors.remove(0)).to_vec();
        assert_eq!(
            decode_within(limits, [header(&Header { tensors, ..fair_header(&[]) })]).unwrap_err().to_string(),
            "the message announces more than the 100 payload bytes that are allowed here"
        );
    }
}

#[test]
fn a_tensor_of_unknown_kind_or_element_or_impossible_shape_is_refused() {
    let spoil = |spoil: fn(&mut TensorHeader)| {
        let mut spoilt = fair_header(&[1]);
        spoil(&mut spoilt.tensors[0]);
        refusal([header(&spoilt)])
    };
    assert_eq!(spoil(|tensor| tensor.kind = 0), "tensor \"t\" has the unknown kind 0");
    assert_eq!(spoil(|tensor| tensor.element = 99), "tensor \"t\" has the unknown element type 99");
    for shape in [vec![-1], vec![2, -3], vec![1 << 32, 1 << 32], vec![i64::MAX, 2]] {
        assert_eq!(
            refusal([header(&fair_header(&shape))]),
            format!("tensor \"t\" has the shape {shape:?}, which no tensor can have")
        );
    }
}

#[test]
fn fields_that_are_long_or_not_json_are_refused_on_both_sides() {
    let long = Message { fields: json!("x".repeat(FIELDS_BYTES)), ..Message::new(Subject::Upload, 1) };
    let sentence = "the fields of the message have 65538 bytes, at most 65536 are allowed";
    assert_eq!(encode(long.clone(), RUN).err().unwrap().to_string(), sentence);
    let fields = Header { fields: long.fields.to_string().into(), ..fair_header(&[1]) };
    assert_eq!(refusal([header(&fields)]), sentence);
    for odd in [&b"{"[..], b"{} {}", b"\xff", "[".repeat(1000).as_bytes()] {
        let fields = Header { fields: Bytes::copy_from_slice(odd), ..fair_header(&[1]) };
        assert!(refusal([header(&fields)]).starts_with("the fields of the message are not JSON: "));
    }
}

#[test]
fn a_header_longer_than_its_limits_need_is_refused_unread() {
    let long = Frame { body: Some(Body::Header(vec![0xff; 70_000].into())) };
    assert_eq!(
        decode_within(Limits::FIELDS_ONLY, [long]).unwrap_err().to_string(),
        "the header of the message has 70000 bytes, at most 66560 are allowed here"
    );
    let garbage = Frame { body: Some(Body::Header(vec![0xff; 70].into())) };
    assert!(refusal([garbage]).starts_with("the header of the message cannot be read: "));
}

#[test]
fn a_tensor_with_a_long_name_or_many_dimensions_is_refused_and_quoted_in_short() {
    let named = |name: String, shape: Vec<i64>| {
        let mut spoilt = fair_header(&[]);
        spoilt.tensors[0] = TensorHeader { name, shape, ..spoilt.tensors[0].clone() };
        header(&spoilt)
    };
    let long = refusal([named("x".repeat(257), vec![1])]);
    assert!(long.ends_with("\" has a name of 257 bytes and 1 dimensions, at most 256 and 8 are allowed"), "{long}");
    assert!(long.len() < 200, "{long}");
    let deep = refusal([named("t".to_owned(), vec![1; 9])]);
    assert!(deep.contains("9 dimensions"), "{deep}");
    let sent = upload(vec![WireTensor { shape: vec![1; 9], ..tensor("t", 1) }]);
    assert!(matches!(encode(sent, RUN).err(), Some(WireError::TensorHeader { dimensions: 9, .. })));
}

#[test]
fn a_message_no_receiver_would_take_is_not_sent() {
    let many = upload((0..40_000).map(|index| tensor(&format!("tensor-with-a-long-name-{index}"), 0)).collect());
    assert!(matches!(encode(many, RUN).err(), Some(WireError::HeaderTooLong { .. })));
    let lying = upload(vec![WireTensor { shape: vec![5], ..tensor("t", 4) }]);
    assert!(matches!(encode(lying, RUN).err(), Some(WireError::Length { length: 4, expected: 5, .. })));
}

#[test]
fn frames_out_of_order_are_refused() {
    assert_eq!(refusal([Frame { body: None }]), "a frame holds neither header nor chunk");
    assert_eq!(refusal([chunk(10)]), "a chunk of 10 bytes came where a header was expected");
    assert_eq!(
        refusal([header(&fair_header(&[100])), header(&fair_header(&[100]))]),
        "a new header came while 100 bytes of the message before were missing"
    );
}

#[test]
fn a_chunk_longer_or_shorter_than_what_is_due_is_refused() {
    let begin = |length: usize| header(&fair_header(&[length as i64]));
    assert_eq!(refusal([begin(10), chunk(11)]), "a chunk has 11 bytes, expected 10: it is too long");
    assert_eq!(
        refusal([begin(3 * CHUNK_BYTES), chunk(CHUNK_BYTES + 1)]),
        "a chunk has 1048577 bytes, expected 1048576: it is too long"
    );
    assert_eq!(refusal([begin(10), chunk(9)]), "a chunk has 9 bytes, expected 10: it is too short");
    // Or else a peer could send empty chunks for ever.
    assert_eq!(refusal([begin(3 * CHUNK_BYTES), chunk(0)]), "a chunk has 0 bytes, expected 1048576: it is too short");
}

#[test]
fn a_header_that_announces_the_most_makes_no_room_for_it() {
    const MOST: u64 = i64::MAX as u64;
    let limits = Limits { tensors: 16, payload_bytes: MOST };
    let mut decoder = Decoder::new(RUN, limits);
    assert_eq!(decoder.push(header(&fair_header(&[i64::MAX]))).unwrap(), None);
    assert!(decoder.held() < 4096, "{} bytes for a word", decoder.held());
    for mebibytes in 1..4 {
        assert_eq!(decoder.push(chunk(CHUNK_BYTES)).unwrap(), None);
        let held = decoder.held();
        assert!(held < (mebibytes << 20) + 4096, "{held} bytes for {mebibytes} MiB that came");
    }
}
