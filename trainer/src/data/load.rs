//! From a plan to a corpus: reads, holds out, partitions, tokenises, in this order.
//! Must not read what is out of scope: a client's process never opens another client's own file.

use std::path::Path;

use super::{Corpus, DataError, DataPlan, Scope};
use crate::events::Events;

/// Loads what `scope` covers. With a `cache` folder, tokens are kept there from one run to the next.
pub fn load(
    plan: &DataPlan,
    scope: Scope,
    tokenizer: &tokenizers::Tokenizer,
    tokenizer_hash: &str,
    cache: Option<&Path>,
    events: &Events,
) -> Result<Corpus, DataError>;
