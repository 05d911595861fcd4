use kube::core::cel::Validator;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

/// True if serde reads `value` as `T`, and the same answer from `T`'s own CEL rule.
fn both_accept<T: DeserializeOwned + JsonSchema>(value: &Value) -> (bool, bool) {
    let schema = T::json_schema(&mut SchemaGenerator::default()).to_value();
    (T::deserialize(value).is_ok(), Validator::new().validate(&schema, value, None).is_ok())
}

#[test]
fn types_and_rules_accept_the_same_decimals() {
    for good in ["0", "16", "0.5", "5e-4", "1E15", "1.50e+2", "007"] {
        assert_eq!(both_accept::<Decimal>(&json!(good)), (true, true), "{good}");
    }
    for bad in ["", ".", ".5", "5.", "-1", "+1", "1e", "1e-", "1e100", "inf", "NaN", "0x1", "1 ", "1,5", "1.5.0", "１"]
    {
        assert_eq!(both_accept::<Decimal>(&json!(bad)), (false, false), "{bad}");
    }
}

#[test]
fn types_and_rules_accept_the_same_spans_of_time() {
    for good in ["90s", "30m", "2h", "1h30m", "1h30m15s", "0h1s", "99999h"] {
        assert_eq!(both_accept::<TimeSpan>(&json!(good)), (true, true), "{good}");
    }
    for bad in ["", "0s", "0h0m", "2", "2d", "30m1h", "1h1h", "-1h", "1.5h", "h", "100000h", " 1h", "1h "] {
        assert_eq!(both_accept::<TimeSpan>(&json!(bad)), (false, false), "{bad}");
    }
}

#[test]
fn types_and_rules_accept_the_same_numbers_of_bytes() {
    for good in [
        json!("10Gi"),
        json!("500M"),
        json!("1"),
        json!("3k"),
        json!(1),
        json!(999_999_999_999_999_u64),
        json!("999999999999999Pi"),
    ] {
        assert_eq!(both_accept::<ByteSize>(&good), (true, true), "{good}");
    }
    for bad in [
        json!(""),
        json!("0"),
        json!(0),
        json!("010"),
        json!("10GB"),
        json!("10 Gi"),
        json!("1.5Gi"),
        json!("K"),
        json!("-1"),
        json!("1Ei"),
    ] {
        assert_eq!(both_accept::<ByteSize>(&bad), (false, false), "{bad}");
    }
}

#[test]
fn quantities_have_the_value_they_say() {
    assert_eq!("5e-4".parse::<Decimal>().expect("a decimal").value().to_bits(), 5e-4_f64.to_bits());
    assert_eq!("1h30m15s".parse::<TimeSpan>().expect("a span").duration(), Duration::from_secs(3600 + 30 * 60 + 15));
    assert_eq!("10Gi".parse::<ByteSize>().expect("bytes").bytes(), 10 * 1024 * 1024 * 1024);
    assert_eq!("500M".parse::<ByteSize>().expect("bytes").bytes(), 500_000_000);
    assert_eq!("999999999999999Pi".parse::<ByteSize>().expect("bytes").bytes(), u64::MAX);
}

#[test]
fn quantities_are_written_as_they_were_read() {
    for value in [json!("16.0"), json!("5e-4")] {
        assert_eq!(serde_json::to_value(Decimal::deserialize(&value).expect("a decimal")).expect("plain"), value);
    }
    for value in [json!(1024), json!("1Ki")] {
        assert_eq!(serde_json::to_value(ByteSize::deserialize(&value).expect("bytes")).expect("plain"), value);
    }
}
