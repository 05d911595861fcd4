//! A round's uploads until it closes: a few in memory, the others in a file, so that memory does not grow with the clients.
//! Must not combine; and must not read more than one client's tensor at a time where a mean is all that is asked for.

use std::{collections::BTreeMap, env, fs::File, io, os::unix::fs::FileExt};

use bytes::Bytes;
use tch::{Device, Tensor};

use crate::{averages::BytesMean, frameworks::FrameworkError, rounds::Client, wire::WireTensor};

/// Bytes of uploads that stay in memory; what comes when there are more goes to the file.
const IN_MEMORY: usize = 8 << 20;

/// A client's upload, in the adapter's order, with its examples and its scale.
pub(super) struct Upload {
    pub(super) examples: u64,
    pub(super) scale: f64,
    pub(super) tensors: Vec<Tensor>,
}

/// One whose upload counts.
pub(super) struct Counted {
    pub(super) client: Client,
    pub(super) examples: u64,
    pub(super) scale: f64,
}

/// Checked uploads, by client.
#[derive(Default)]
pub(super) struct Uploads {
    kept: BTreeMap<Client, Vec<Kept>>,
    in_memory: usize,
    spill: Option<Spill>,
}

/// One tensor of an upload, F32.
struct Kept {
    shape: Vec<i64>,
    bytes: Place,
}

enum Place {
    Memory(Bytes),
    File { at: u64, length: usize },
}

/// A file without a name, which is gone with this process. It keeps its length from round to round: pages that are
/// there already are written faster.
struct Spill {
    file: File,
    end: u64,
}

impl Uploads {
    /// Keeps a client's upload, in the place of one that it sent before.
    pub(super) fn put(&mut self, client: Client, tensors: &[WireTensor]) -> Result<(), FrameworkError> {
        self.remove(client);
        let length: usize = tensors.iter().map(|tensor| tensor.bytes.len()).sum();
        let places: Vec<Place> = if self.in_memory + length <= IN_MEMORY {
            self.in_memory += length;
            tensors.iter().map(|tensor| Place::Memory(tensor.bytes.clone())).collect()
        } else {
            self.write(tensors).map_err(spill_error)?
        };
        let kept = tensors.iter().zip(places).map(|(tensor, bytes)| Kept { shape: tensor.shape.clone(), bytes });
        self.kept.insert(client, kept.collect());
        Ok(())
    }

    /// Forgets a client's upload.
    pub(super) fn remove(&mut self, client: Client) {
        for kept in self.kept.remove(&client).into_iter().flatten() {
            match kept.bytes {
                Place::Memory(bytes) => self.in_memory -= bytes.len(),
                Place::File { .. } => {}
            }
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.in_memory = 0;
        if let Some(spill) = &mut self.spill {
            spill.end = 0;
        }
    }

    /// Those of whom there is an upload, in the order given, to be combined on `device`.
    pub(super) fn answered(&self, counted: impl Iterator<Item = Counted>, device: Device) -> Answered<'_> {
        let counted = counted.filter(|counted| self.kept.contains_key(&counted.client)).collect();
        Answered { uploads: self, counted, device }
    }

    fn write(&mut self, tensors: &[WireTensor]) -> io::Result<Vec<Place>> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill { file: tempfile::tempfile()?, end: 0 }),
        };
        tensors.iter().map(|tensor| spill.write(&tensor.bytes)).collect()
    }

    fn read<'a>(&'a self, kept: &'a Kept, room: &'a mut Vec<u8>) -> Result<&'a [u8], FrameworkError> {
        match (&kept.bytes, &self.spill) {
            (Place::Memory(bytes), _) => Ok(bytes),
            (Place::File { at, length }, Some(spill)) => {
                room.resize(*length, 0);
                spill.file.read_exact_at(room, *at).map_err(spill_error)?;
                Ok(room)
            }
            (Place::File { .. }, None) => Err(spill_error(io::ErrorKind::NotFound.into())),
        }
    }
}

impl Spill {
    fn write(&mut self, bytes: &[u8]) -> io::Result<Place> {
        let (at, length) = (self.end, bytes.len());
        self.file.write_all_at(bytes, at)?;
        self.end += length as u64;
        Ok(Place::File { at, length })
    }
}

/// The uploads of those that a round closes with.
pub(super) struct Answered<'a> {
    uploads: &'a Uploads,
    counted: Vec<Counted>,
    device: Device,
}

impl Answered<'_> {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }

    /// Means of the tensors from `first` on, weighted by examples, in client order.
    pub(super) fn means(&self, first: usize) -> Result<Vec<Tensor>, FrameworkError> {
        let count = self.counted.first().map_or(0, |counted| self.uploads.kept[&counted.client].len());
        (first..count).map(|index| self.mean(index)).collect()
    }

    fn mean(&self, index: usize) -> Result<Tensor, FrameworkError> {
        let (mut mean, mut room, mut shape) = (BytesMean::default(), Vec::new(), &[][..]);
        for Counted { client, examples, .. } in &self.counted {
            let kept = &self.uploads.kept[client][index];
            mean.add(self.uploads.read(kept, &mut room)?, *examples as f64);
            shape = &kept.shape;
        }
        Ok(mean.finish(shape).to_device(self.device))
    }

    /// All of it, for what needs every client's factors at once.
    pub(super) fn whole(&self) -> Result<Vec<Upload>, FrameworkError> {
        let whole = |&Counted { client, examples, scale }: &Counted| {
            let tensors = self.uploads.kept[&client].iter().map(|kept| self.tensor(kept)).collect::<Result<_, _>>()?;
            Ok(Upload { examples, scale, tensors })
        };
        self.counted.iter().map(whole).collect()
    }

    fn tensor(&self, kept: &Kept) -> Result<Tensor, FrameworkError> {
        let mut room = Vec::new();
        let bytes = self.uploads.read(kept, &mut room)?;
        Ok(Tensor::f_from_data_size(bytes, &kept.shape, tch::Kind::Float)?.f_to_device(self.device)?)
    }
}

fn spill_error(error: io::Error) -> FrameworkError {
    FrameworkError::Spill { folder: env::temp_dir().display().to_string(), error }
}

#[cfg(test)]
mod tests {
    use fedtune_crds::report::PayloadKind;

    use super::*;
    use crate::wire::Element;

    /// As many numbers as make an upload of a third of what stays in memory.
    const NUMBERS: i64 = IN_MEMORY as i64 / 12;

    fn upload(value: f32) -> Vec<WireTensor> {
        let tensor =
            |values: &Tensor| WireTensor::from_tensor("t", PayloadKind::Adapter, values, Element::F32).unwrap();
        vec![
            tensor(&Tensor::full([NUMBERS], f64::from(value), tch::kind::FLOAT_CPU)),
            tensor(&Tensor::from_slice(&[value])),
        ]
    }

    fn counted(clients: std::ops::Range<Client>) -> impl Iterator<Item = Counted> {
        clients.map(|client| Counted { client, examples: 1 + client as u64, scale: 2.0 })
    }

    #[test]
    fn what_does_not_fit_into_memory_is_read_back_from_the_file() {
        let mut uploads = Uploads::default();
        for client in 0..6 {
            uploads.put(client, &upload(client as f32)).unwrap();
        }
        assert!(uploads.in_memory <= IN_MEMORY && uploads.spill.is_some());
        let answered = uploads.answered(counted(0..6), Device::Cpu);
        // 0*1 + 1*2 + 2*3 + 3*4 + 4*5 + 5*6 over 21.
        let means = answered.means(0).unwrap();
        assert!(means[1].equal(&Tensor::from_slice(&[70.0f32 / 21.0])));
        assert!(means[0].equal(&means[1].expand([NUMBERS], false)));
        for (client, upload) in answered.whole().unwrap().iter().enumerate() {
            assert!(upload.tensors[0].equal(&Tensor::full([NUMBERS], client as f64, tch::kind::FLOAT_CPU)));
        }
    }

    #[test]
    fn an_upload_that_is_sent_again_counts_once_and_one_that_is_abandoned_not_at_all() {
        let mut uploads = Uploads::default();
        for value in [1.0, 2.0, 3.0, 4.0] {
            uploads.put(0, &upload(value)).unwrap();
        }
        uploads.put(1, &upload(100.0)).unwrap();
        uploads.remove(1);
        let means = uploads.answered(counted(0..2), Device::Cpu).means(1).unwrap();
        assert!(means[0].equal(&Tensor::from_slice(&[4.0f32])));
        uploads.clear();
        assert!(uploads.answered(counted(0..2), Device::Cpu).is_empty());
        assert_eq!(uploads.in_memory, 0);
    }
}
