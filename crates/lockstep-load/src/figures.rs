//! What a bench prints: one object, the same for all of them.

use serde::Serialize;
use std::fmt;

/// One number, and what it is held against.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// The number itself.
    pub value: f64,
    /// Of what.
    pub unit: String,
    /// The ratio must not be below, or the value not above; none: it is only told.
    pub limit: Option<Limit>,
    /// Against what it is compared with: the median of the pairs' ratios.
    pub ratio: Option<f64>,
    /// The lowest ratio of a pair, or the lowest value of a run.
    pub min: Option<f64>,
    /// The highest.
    pub max: Option<f64>,
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The ratio is at least this.
    RatioAtLeast(f64),
    /// The ratio is at most this.
    RatioAtMost(f64),
    /// The value is at most this.
    ValueAtMost(f64),
}

impl Figure {
    /// A number that is only told.
    pub fn told(name: &str, unit: &str, value: f64) -> Self {
        let (name, unit) = (name.to_owned(), unit.to_owned());
        Self { name, value, unit, limit: None, ratio: None, min: None, max: None }
    }

    /// The median of several runs, with the lowest and the highest.
    pub fn of_runs(name: &str, unit: &str, runs: &[f64], limit: Option<Limit>) -> Self {
        let min = runs.iter().copied().fold(f64::INFINITY, f64::min);
        let max = runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let told = Self::told(name, unit, crate::pairs::median(runs));
        Self { limit, min: Some(min), max: Some(max), ..told }
    }

    /// What pairs of runs say.
    pub fn of_pairs(name: &str, unit: &str, pairs: &[crate::pairs::Pair], limit: Option<Limit>) -> Self {
        let compared = crate::pairs::compare(pairs);
        let told = Self::told(name, unit, compared.value);
        Self { limit, ratio: Some(compared.ratio), min: Some(compared.min), max: Some(compared.max), ..told }
    }

    /// The same, told by its worst run.
    #[must_use]
    pub fn highest(self) -> Self {
        Self { value: self.max.unwrap_or(self.value), ..self }
    }

    /// Whether it keeps its limit.
    pub fn holds(&self) -> bool {
        match self.limit {
            None => true,
            Some(Limit::RatioAtLeast(limit)) => self.ratio.is_some_and(|ratio| ratio >= limit),
            Some(Limit::RatioAtMost(limit)) => self.ratio.is_some_and(|ratio| ratio <= limit),
            Some(Limit::ValueAtMost(limit)) => self.value <= limit,
        }
    }
}

/// What a bench found.
#[derive(Debug, Clone, Serialize)]
pub struct Bench {
    /// The bench's name.
    pub name: &'static str,
    /// How often each comparison was made.
    pub runs: usize,
    /// The numbers.
    pub figures: Vec<Figure>,
    /// What it ran on.
    pub machine: crate::machine::Machine,
    /// Of what took part.
    pub versions: crate::machine::Versions,
}

impl Bench {
    /// Whether all figures keep their limits.
    pub fn holds(&self) -> bool {
        self.figures.iter().all(Figure::holds)
    }
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} runs, {}; PostgreSQL {}",
            self.name, self.runs, self.machine, self.versions.postgresql
        )?;
        for figure in &self.figures {
            write!(f, "{:<28} {:>12.2} {}", figure.name, figure.value, figure.unit)?;
            if let Some(ratio) = figure.ratio {
                write!(f, "  ratio {ratio:.3}")?;
            }
            if let (Some(min), Some(max)) = (figure.min, figure.max) {
                write!(f, " ({min:.3} to {max:.3})")?;
            }
            match figure.limit {
                None => writeln!(f)?,
                Some(limit) => {
                    let (Limit::RatioAtLeast(number)
                    | Limit::RatioAtMost(number)
                    | Limit::ValueAtMost(number)) = limit;
                    writeln!(f, "  limit {number} {}", if figure.holds() { "kept" } else { "MISSED" })?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_of_ratios_or_of_values() {
        let figure = |limit, ratio| Figure {
            name: "x".into(),
            value: 10.0,
            unit: "u".into(),
            limit,
            ratio,
            min: None,
            max: None,
        };
        assert!(figure(None, None).holds());
        assert!(figure(Some(Limit::RatioAtLeast(0.5)), Some(0.5)).holds());
        assert!(!figure(Some(Limit::RatioAtLeast(0.5)), Some(0.49)).holds());
        assert!(
            !figure(Some(Limit::RatioAtLeast(0.5)), None).holds(),
            "a ratio that was not measured keeps nothing"
        );
        assert!(figure(Some(Limit::RatioAtMost(1.3)), Some(1.3)).holds());
        assert!(!figure(Some(Limit::RatioAtMost(1.3)), None).holds());
        assert!(figure(Some(Limit::ValueAtMost(10.0)), None).holds());
        assert!(!figure(Some(Limit::ValueAtMost(9.0)), None).holds());
    }
}
