//! What a checkpoint file gives back, and what it does not.

use serde_json::json;

use super::*;

fn header() -> Header {
    Header { run_hash: "5a".repeat(32), round: 7, content: Content::State }
}

fn tensor(name: &str, element: Element, shape: &[i64]) -> WireTensor {
    let length = shape.iter().product::<i64>() as usize * element.size();
    let bytes = (0..length).map(|byte| (byte * 37 + 11) as u8).collect();
    WireTensor { name: name.to_owned(), kind: PayloadKind::Adapter, element, shape: shape.to_vec(), bytes }
}

fn file(snapshot: &Snapshot) -> Vec<u8> {
    seal(&encode(header(), snapshot).unwrap())
}

fn small() -> Vec<u8> {
    file(&Snapshot { fields: json!({"step": 3}), tensors: vec![tensor("a", Element::BF16, &[3])] })
}

/// A sealed file whose safetensors header is `header`.
fn sealed(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    seal(&[&header.len().to_le_bytes()[..], header.as_bytes(), data].concat())
}

/// The description of a file with one tensor, `a`.
fn description() -> Value {
    let description = json!({"header": header(), "tensors": [{"name": "a", "kind": "adapter"}], "fields": null});
    json!({"fedtune": description.to_string()})
}

fn refusal(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err().to_string()
}

#[test]
fn every_kind_of_tensor_comes_back_as_it_was_in_the_same_order() {
    let elements = Element::ALL.map(|element| tensor(&element.to_string(), element, &[2, 3]));
    let shapes = [&[][..], &[0], &[3, 0, 2], &[1, 1]].map(|shape| tensor("same name", Element::F32, shape));
    let kinds = [PayloadKind::Logits, PayloadKind::Head, PayloadKind::Length, PayloadKind::ActivationGradient];
    let kinds = kinds.map(|kind| WireTensor { kind, ..tensor("__metadata__", Element::U8, &[5]) });
    let tensors = [&elements[..], &shapes, &kinds].concat();
    let snapshot = Snapshot { fields: json!({"clients": ["silo-a/0"], "best": null}), tensors };
    assert_eq!(parse(&file(&snapshot)).unwrap(), (header(), snapshot));
    assert_eq!(parse(&file(&Snapshot::default())).unwrap().1, Snapshot::default());
}

#[test]
fn figures_come_back_to_the_last_bit() {
    let mut state = 1u64;
    let figures: Vec<f64> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from_bits(state)
    })
    .filter(|figure| figure.is_finite())
    .take(2_000)
    .collect();
    let (_, snapshot) = parse(&file(&Snapshot { fields: json!(figures), tensors: Vec::new() })).unwrap();
    let read: Vec<f64> = serde_json::from_value(snapshot.fields).unwrap();
    assert!(figures.iter().zip(&read).all(|(kept, read)| kept.to_bits() == read.to_bits()));
    assert_eq!(read.len(), figures.len());
}

#[test]
fn the_same_checkpoint_is_the_same_bytes() {
    assert_eq!(small(), small());
}

#[test]
fn a_file_cut_short_at_any_length_is_refused() {
    let whole = small();
    for length in 0..whole.len() {
        let error = parse(&whole[..length]).unwrap_err();
        assert!(matches!(error, FileError::CutShort { .. } | FileError::Damaged), "{length}: {error}");
    }
    assert!(matches!(parse(&[&whole[..], b"x"].concat()), Err(FileError::Damaged)));
}

#[test]
fn one_flipped_bit_anywhere_is_noticed() {
    let whole = small();
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = parse(&flipped).unwrap_err();
        assert!(matches!(error, FileError::NotACheckpoint | FileError::Damaged), "{bit}: {error}");
    }
}

#[test]
fn a_whole_file_of_a_newer_version_is_said_to_be_one() {
    let sealed = [&2u64.to_le_bytes()[..], b"whatever it holds"].concat();
    let newer = [&MAGIC[..], Sha256::digest(&sealed).as_slice(), &sealed].concat();
    assert_eq!(refusal(&newer), "it is in format 2, this program reads up to format 1; go on with a newer fedtune");
}

#[test]
fn a_header_that_lies_is_refused_before_anything_is_allocated_for_it() {
    let a = json!({"dtype": "U8", "shape": [2], "data_offsets": [0, 2]});
    let with = |tensors: &[(&str, Value)]| {
        let mut header = json!({"__metadata__": description()});
        for (key, info) in tensors {
            header[key] = info.clone();
        }
        header
    };
    assert!(parse(&sealed(&with(&[("0:a", a.clone())]), b"ab")).is_ok());
    let empty = json!({"dtype": "U8", "shape": [1u64 << 63, 0], "data_offsets": [0, 0]});
    let huge = json!({"dtype": "F32", "shape": [1u64 << 40], "data_offsets": [0, 1u64 << 42]});
    let cases = [
        (seal(b""), "it has 48 bytes, fewer than every checkpoint: it is cut short"),
        (seal(&[0xff; 8]), "its header of 18446744073709551615 bytes does not fit into it"),
        (seal(&[0, 0, 0, 0, 0, 0, 0, 0]), "its header cannot be read: EOF while parsing a value"),
        (sealed(&json!({"0:a": a}), b"ab"), "its header does not say what it holds"),
        (sealed(&json!({"__metadata__": {"fedtune": "{"}}), b""), "its header cannot be read: EOF while parsing"),
        (sealed(&with(&[("0:a", a.clone())]), b"abc"), "its tensors have 3 bytes, expected 2"),
        (sealed(&with(&[("0:a", huge)]), b"ab"), "its tensors have 2 bytes, expected 4398046511104"),
        (sealed(&with(&[]), b""), "it has 0 tensors, expected 1"),
        (sealed(&with(&[("a", a.clone())]), b"ab"), "its tensor \"a\" is missing"),
        (
            sealed(&with(&[("0:a", json!({"dtype": "I16", "shape": [1], "data_offsets": [0, 2]}))]), b"ab"),
            "its tensor \"a\" has elements of I16, which are never kept",
        ),
        (sealed(&with(&[("0:a", empty)]), b""), "its tensor \"a\" has a dimension that no tensor can have"),
        (
            sealed(&with(&[("0:a", json!({"dtype": "F32", "shape": [2], "data_offsets": [0, 2]}))]), b"ab"),
            "its header cannot be read: invalid shape, data type, or offset for tensor",
        ),
    ];
    for (bytes, expected) in cases {
        let refusal = refusal(&bytes);
        assert!(refusal.starts_with(expected), "{refusal}\nexpected: {expected}");
    }
}

#[test]
fn offsets_up_to_the_last_address_are_refused_and_not_added_to() {
    let part = (1u64 << 61) - 1;
    let mut header = json!({"__metadata__": description()});
    for place in 0..9 {
        let (start, length) = (place * part, if place < 8 { part } else { 7 });
        let info = json!({"dtype": "U8", "shape": [length], "data_offsets": [start, start + length]});
        header[format!("{place}:a")] = info;
    }
    assert_eq!(refusal(&sealed(&header, b"ab")), "its tensors have 2 bytes, expected 18446744073709551615");
}

#[test]
fn a_tensor_that_could_not_be_read_again_is_not_written() {
    let whole = tensor("a", Element::F32, &[2]);
    for (shape, expected) in [
        (
            vec![3],
            "round 7 cannot be kept as a checkpoint: tensor \"a\" of shape [3] and element F32 has 8 bytes, expected 12",
        ),
        (vec![-2], "round 7 cannot be kept as a checkpoint: tensor \"a\" has the shape [-2], which no tensor can have"),
        (
            vec![1 << 40, 1 << 40],
            "round 7 cannot be kept as a checkpoint: tensor \"a\" has the shape [1099511627776, 1099511627776], which no tensor can have",
        ),
    ] {
        let tensors = vec![WireTensor { shape, ..whole.clone() }];
        let snapshot = Snapshot { tensors, ..Snapshot::default() };
        assert_eq!(encode(header(), &snapshot).unwrap_err().to_string(), expected);
    }
}
