//! The one way that `Default` of a spec's part is made: by reading an empty object.
//! Must not hold a value: those stand beside their fields, so that code, schema and file agree.

use serde::de::DeserializeOwned;

/// `T` as `{}` reads it.
pub(crate) fn of_an_empty_object<T: DeserializeOwned>() -> T {
    serde_json::from_value(serde_json::json!({})).expect("each field of a part with Default has a serde default")
}
