//! Private data: read, held out, partitioned, tokenised, batched.
//! Must not know models or frameworks: texts in, token batches out.
