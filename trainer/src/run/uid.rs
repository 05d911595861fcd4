//! Names that no two runs or processes share: of a run, and of a client's process.
//! Must not decide a bit of any result.

use std::time::{SystemTime, UNIX_EPOCH};

use fedtune_crds::hex;
use sha2::{Digest, Sha256};

use crate::plan::Plan;

/// The resource's uid, or a name made for this one run: two runs of one spec differ in it.
pub fn text(plan: &Plan) -> String {
    if let Some(uid) = &plan.uid {
        return uid.clone();
    }
    let hex = hex(&digest(&plan.spec_hash)[..16]);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// A number for this process as this client of the run. It fits a JSON number of any reader.
pub fn incarnation(plan: &Plan, ordinal: usize) -> u64 {
    let digest = digest(&format!("{} {ordinal}", plan.spec_hash));
    digest[..6].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn digest(what: &str) -> [u8; 32] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Sha256::digest(format!("{what} {now} {}", std::process::id())).into()
}
