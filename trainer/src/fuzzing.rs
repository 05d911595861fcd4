//! Doors for the fuzz targets in `fuzz/`: each takes bytes as a peer or a file may hold them, and gives the sentence
//! with which they are refused. Must not read anything itself: it leads to the code that a run uses.

use bytes::{Buf, Bytes};
use fedtune_crds::{load_all, report::PayloadKind};
use prost::Message as _;
use tch::Device;

use crate::{
    checkpoint::{parse, seal},
    data::{Texts, tokenise},
    events::Events,
    models,
    plan::Plan,
    protocol::{Frame, frame::Body},
    wire::{CHUNK_BYTES, Decoder, Element, FIELDS_BYTES, Limits, Message, WireTensor, encode},
};

/// What a target does with an input: nothing, or the sentence with which it is refused.
pub type Target = fn(&[u8]) -> Result<(), String>;

/// Every target, under the name of its file in `fuzz/fuzz_targets/` and of its folder in `fuzz/corpus/`.
pub const TARGETS: [(&str, Target); 7] = [
    ("checkpoint", checkpoint),
    ("gguf", gguf),
    ("safetensors", safetensors),
    ("spec_yaml", spec_yaml),
    ("tensor_bytes", tensor_bytes),
    ("tokenizer", tokenizer),
    ("wire_frames", wire_frames),
];

/// The run that the frames of [`wire_frames`] belong to.
const RUN: &str = "run";

/// What [`wire_frames`] accepts in a message: enough for several chunks.
const LIMITS: Limits = Limits { tensors: 4, payload_bytes: 3 << 20 };

/// A sentence that quotes a peer is no longer than this.
const LONGEST_SENTENCE: usize = 1024;

/// A session's frames: `F` before a frame as the network has it, `C` before the length (3 bytes) of a chunk of zeros,
/// because no input is as long as a chunk.
pub fn wire_frames(bytes: &[u8]) -> Result<(), String> {
    let mut decoder = Decoder::new(RUN, LIMITS);
    let mut bytes = Bytes::copy_from_slice(bytes);
    while let Some(frame) = next_frame(&mut bytes)? {
        match decoder.push(frame) {
            Ok(None) => {}
            Ok(Some(message)) => check_message(&message),
            Err(error) => return Err(checked(error.to_string())),
        }
    }
    decoder.finish().map_err(|error| checked(error.to_string()))
}

fn next_frame(bytes: &mut Bytes) -> Result<Option<Frame>, String> {
    match bytes.try_get_u8() {
        Ok(b'C') if bytes.len() >= 3 => {
            let length = bytes.get_uint_le(3) as usize;
            let chunk = vec![0; length.min(CHUNK_BYTES + 1)];
            Ok(Some(Frame { body: Some(Body::Chunk(chunk.into())) }))
        }
        Ok(_) => Frame::decode_length_delimited(bytes).map(Some).map_err(|error| error.to_string()),
        Err(_) => Ok(None),
    }
}

/// A message that was let through is within the limits, and the same after it has been sent once more.
fn check_message(message: &Message) {
    assert!(message.payload_bytes() <= LIMITS.payload_bytes && message.tensors.len() <= LIMITS.tensors);
    let mut decoder = Decoder::new(RUN, LIMITS);
    let Ok(frames) = encode(message.clone(), RUN) else {
        // Fields may be longer as this program writes them than as they came.
        assert!(message.fields.to_string().len() > FIELDS_BYTES);
        return;
    };
    let again = frames.map(|frame| decoder.push(frame).expect("what was accepted once is accepted again"));
    let again = again.last().flatten().expect("the last frame completes it");
    // JSON numbers lose a last bit now and then.
    assert_eq!(Message { fields: message.fields.clone(), ..again }, *message);
}

fn checked(sentence: String) -> String {
    assert!(sentence.len() <= LONGEST_SENTENCE, "a peer wrote {} bytes of a sentence", sentence.len());
    sentence
}

/// A tensor on its way into libtorch: element type and number of dimensions (a byte each), dimensions (8 bytes each),
/// then its bytes.
pub fn tensor_bytes(bytes: &[u8]) -> Result<(), String> {
    bring_to_libtorch(&read_tensor(bytes).ok_or("it ends within the shape")?)
}

/// Into libtorch and out again: what comes is the same, byte for byte.
fn bring_to_libtorch(tensor: &WireTensor) -> Result<(), String> {
    let read = tensor.to_tensor(Device::Cpu).map_err(|error| checked(error.to_string()))?;
    let back = WireTensor::from_tensor(&tensor.name, tensor.kind, &read, tensor.element);
    assert_eq!(back.as_ref(), Ok(tensor));
    if tensor.element == Element::I32 {
        assert_eq!(tensor.to_i32s().map(|numbers| numbers.len()), Ok(read.numel()));
    }
    Ok(())
}

fn read_tensor(mut bytes: &[u8]) -> Option<WireTensor> {
    let element = Element::ALL[usize::from(bytes.try_get_u8().ok()?) % Element::ALL.len()];
    let dimensions = bytes.try_get_u8().ok()?;
    let shape = (0..dimensions).map(|_| bytes.try_get_i64_le().ok()).collect::<Option<_>>()?;
    let bytes = Bytes::copy_from_slice(bytes);
    Some(WireTensor { name: "t".to_owned(), kind: PayloadKind::Adapter, element, shape, bytes })
}

/// A safetensors file, every tensor of it.
pub fn safetensors(bytes: &[u8]) -> Result<(), String> {
    models::fuzzing::load_safetensors(bytes).map_err(|error| error.to_string())
}

/// A GGUF file: its model, every tensor of it, its tokenizer.
pub fn gguf(bytes: &[u8]) -> Result<(), String> {
    models::fuzzing::load_gguf(bytes).map_err(|error| error.to_string())
}

/// A `tokenizer.json`, and after a zero byte a text to be tokenised.
pub fn tokenizer(bytes: &[u8]) -> Result<(), String> {
    let (json, text) = split(bytes);
    let tokenizer = models::fuzzing::load_tokenizer(json)?;
    let text = String::from_utf8_lossy(text);
    let tokens = tokenise(&[&text], Texts::Whole(16), &tokenizer, "", None, &Events::silent())
        .map_err(|error| error.to_string())?;
    assert!(tokens.iter().all(|tokens| tokens.len() <= 16));
    Ok(())
}

/// A checkpoint file: as it is, and as what follows the hash in one, which then is right.
pub fn checkpoint(bytes: &[u8]) -> Result<(), String> {
    // Chance never finds a hash: this stays at the door.
    let _ = parse(bytes);
    let (_, snapshot) = parse(&seal(bytes)).map_err(|error| error.to_string())?;
    let held: u64 = snapshot.tensors.iter().map(WireTensor::payload_bytes).sum();
    assert!(held <= bytes.len() as u64);
    snapshot.tensors.iter().try_for_each(bring_to_libtorch)
}

/// A file of resources, and after each zero byte a `--set`; each resource that is accepted becomes a plan.
pub fn spec_yaml(bytes: &[u8]) -> Result<(), String> {
    let text = str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut parts = text.split('\0').map(str::to_owned);
    let yaml = parts.next().unwrap_or_default();
    let resources = load_all(&yaml, &parts.collect::<Vec<_>>()).map_err(|error| error.to_string())?;
    resources.iter().try_for_each(|resource| Plan::of(resource).map(drop).map_err(|error| error.to_string()))
}

fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (&bytes[..at], bytes.get(at + 1..).unwrap_or_default())
}

#[cfg(test)]
mod seeds;
#[cfg(test)]
mod tests;
