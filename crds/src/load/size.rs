//! Refuses YAML that stands for far more than it says: aliases let a few lines become millions of values.
//! Must not keep a value: it counts them.

use std::fmt;

use serde::de::{self, DeserializeSeed, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor};

/// Values in a file of resources, at most; the largest resource that all lists and texts allow has fewer.
const MOST_VALUES: usize = 100_000;

/// Counts the values of all documents of `yaml`, aliases followed.
pub(super) fn check(yaml: &str) -> Result<(), serde_yaml::Error> {
    let mut left = MOST_VALUES;
    serde_yaml::Deserializer::from_str(yaml).try_for_each(|document| Count(&mut left).deserialize(document))
}

/// Takes one value, and all in it, off what is left.
struct Count<'a>(&'a mut usize);

impl Count<'_> {
    fn one<E: de::Error>(self) -> Result<(), E> {
        let fewer = self.0.checked_sub(1);
        *self.0 = fewer.ok_or_else(|| E::custom(format!("it stands for more than {MOST_VALUES} values")))?;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.one()
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.one()
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.one()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.one()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.one()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.one()
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        self.one()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Count(self.0))?.is_some() {}
        self.one()
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key_seed(Count(self.0))?.is_some() {
            fields.next_value_seed(Count(self.0))?;
        }
        self.one()
    }

    /// A value with a tag.
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let (_, value): (IgnoredAny, _) = tagged.variant()?;
        value.newtype_variant_seed(self)
    }
}
