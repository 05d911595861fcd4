//! Frequencies of rotary positions (arXiv 2104.09864), and how models stretch them over longer texts.
//! Must not approximate a scaling it does not know: an unknown one is refused by name.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

/// `rope_parameters` of a configuration, or the older `rope_scaling`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct RopeParameters {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rope_theta: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rope_type: Option<String>,
    /// The older name of `rope_type`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) older_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) factor: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) low_freq_factor: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) high_freq_factor: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) original_max_position_embeddings: Option<f64>,
}

/// How frequencies are stretched.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RopeScaling {
    /// Not at all.
    None,
    /// All alike.
    Linear { factor: f64 },
    /// Long waves by `factor`, short ones not, those between smoothly (Llama 3.1).
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
}

impl RopeParameters {
    /// The scaling, or what about it is not supported.
    pub(super) fn scaling(&self, max_positions: usize) -> Result<RopeScaling, String> {
        let kind = self.rope_type.as_ref().or(self.older_type.as_ref());
        let need = |name: &str, value: Option<f64>| {
            value.filter(|value| *value > 0.0).ok_or_else(|| format!("its rope scaling lacks a positive {name}"))
        };
        match kind.map_or("default", String::as_str) {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: need("factor", self.factor)? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: need("factor", self.factor)?,
                low: need("low_freq_factor", self.low_freq_factor)?,
                high: need("high_freq_factor", self.high_freq_factor)?,
                original: self.original_max_position_embeddings.unwrap_or(max_positions as f64),
            }),
            other => Err(format!("its rope scaling is {other:?}; supported are default, linear and llama3")),
        }
    }
}

impl RopeScaling {
    /// Radians a position for each pair of dimensions, `[head_dim / 2]`.
    pub(super) fn frequencies(&self, theta: f64, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2).map(|pair| self.stretch(theta.powf(-2.0 * pair as f64 / head_dim as f64)) as f32).collect()
    }

    fn stretch(&self, frequency: f64) -> f64 {
        match *self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low, high, original } => {
                let waves = original * frequency / TAU; // full turns within the original context
                let kept = ((waves - low) / (high - low)).clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_short_waves_and_stretches_long_ones() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        // Wavelengths below 8192 / 4 stay, above 8192 / 1 are eight times as long.
        assert!((scaling.stretch(TAU / 1000.0) - TAU / 1000.0).abs() < 1e-15);
        assert!((scaling.stretch(TAU / 9000.0) - TAU / 72_000.0).abs() < 1e-15);
        let between = scaling.stretch(TAU / 4096.0);
        // Two turns: a third of the way from 1 to 4.
        assert!((between - TAU / 4096.0 * (1.0 / 3.0 + 2.0 / 3.0 / 8.0)).abs() < 1e-15);
    }

    #[test]
    fn an_unknown_rope_scaling_is_refused_by_name() {
        let yarn = RopeParameters { rope_type: Some("yarn".into()), ..RopeParameters::default() };
        let sentence = yarn.scaling(2048).unwrap_err();
        assert_eq!(sentence, "its rope scaling is \"yarn\"; supported are default, linear and llama3");
    }
}
