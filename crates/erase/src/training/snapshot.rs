//! States that an interrupted run takes up again: named numbers and exact counters, whole or not at
//! all.
//!
//! What is read is checked against what is expected: a tensor that is missing, has another size,
//! holds a number that is not finite, or is not asked for is an error that names it. A state that
//! is half there would continue as another run without a word.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use scumble_nn::files::{HostTensor, Tensors};

use crate::{
    error::{Error, Result},
    host::to_host,
    job::Store,
    training::adam::Moments,
};

/// A state on its way into a store.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(Tensors);

impl Snapshot {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter, exact to the last bit.
    pub fn count(&mut self, name: &str, count: u64) {
        self.whole(name, &[count]);
    }

    /// Whole numbers, such as tokens, exact to the last bit.
    pub fn whole(&mut self, name: &str, values: &[u64]) {
        let values: Vec<i64> = values.iter().map(|value| value.cast_signed()).collect();
        self.0.insert(
            name.to_owned(),
            HostTensor::from_i64([values.len()], &values),
        );
    }

    /// Numbers as they are.
    pub fn numbers(&mut self, name: &str, values: &[f32]) {
        self.0.insert(
            name.to_owned(),
            HostTensor::from_f32([values.len()], values),
        );
    }

    /// A flat tensor.
    pub fn tensor(&mut self, name: &str, tensor: &Tensor<1>) {
        self.0.insert(name.to_owned(), to_host(tensor.clone()));
    }

    /// Adam's moments of a tensor, as `NAME.m` and `NAME.v`.
    pub fn moments(&mut self, name: &str, moments: &Moments) {
        self.tensor(&format!("{name}.m"), &moments.m);
        self.tensor(&format!("{name}.v"), &moments.v);
    }

    /// Those of another state, their names behind `prefix`.
    pub fn extend(&mut self, prefix: &str, tensors: Tensors) {
        let named = |(name, tensor)| (format!("{prefix}{name}"), tensor);
        self.0.extend(tensors.into_iter().map(named));
    }

    /// The tensors by name.
    pub fn into_tensors(self) -> Tensors {
        self.0
    }

    /// Keeps it in a store, for the same job alone.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub fn keep(self, store: &dyn Store, name: &str) -> Result<()> {
        store.put(name, self.0)
    }
}

/// A state as it came out of a store. What has been read is taken out; [`end`](Self::end) sees that
/// nothing is left.
#[derive(Clone, Debug)]
pub struct Stored {
    name: String,
    /// How the names of the tensors begin where they are stored.
    prefix: String,
    tensors: Tensors,
}

impl Stored {
    /// The state that an earlier run of the same job kept under this name, if any.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn get(store: &dyn Store, name: &str) -> Result<Option<Self>> {
        Ok(store.get(name)?.map(|tensors| Self::of(name, tensors)))
    }

    /// The state of this name with these tensors.
    pub fn of(name: &str, tensors: Tensors) -> Self {
        Self {
            name: name.to_owned(),
            prefix: String::new(),
            tensors,
        }
    }

    /// Tensors that were taken out of the state of this name with [`split`](Self::split).
    pub fn part(name: &str, prefix: &str, tensors: Tensors) -> Self {
        Self {
            prefix: prefix.to_owned(),
            ..Self::of(name, tensors)
        }
    }

    /// Takes out all tensors whose names begin so, and names them without it.
    pub fn split(&mut self, prefix: &str) -> Tensors {
        let (of, rest) = std::mem::take(&mut self.tensors)
            .into_iter()
            .partition(|(name, _)| name.starts_with(prefix));
        self.tensors = rest;
        let short =
            |(name, tensor): (String, HostTensor)| (name[prefix.len()..].to_owned(), tensor);
        Tensors::into_iter(of).map(short).collect()
    }

    /// An error about one of its tensors.
    pub fn damaged(&self, tensor: &str, problem: &str) -> Error {
        Error::input(format!("the stored state `{}` cannot be continued: `{}{tensor}` {problem}", self.name, self.prefix))
            .with_hint("it is damaged, or another version of the program wrote it; start again with --overwrite")
    }

    fn take(&mut self, name: &str) -> Result<HostTensor> {
        self.tensors
            .remove(name)
            .ok_or_else(|| self.damaged(name, "is missing"))
    }

    /// A counter.
    ///
    /// # Errors
    /// If it is missing or no single whole number.
    pub fn count(&mut self, name: &str) -> Result<u64> {
        Ok(self.whole(name, 1)?[0])
    }

    /// `n` whole numbers.
    ///
    /// # Errors
    /// If they are missing, or not as many, or no whole numbers.
    pub fn whole(&mut self, name: &str, n: usize) -> Result<Vec<u64>> {
        let host = self.take(name)?;
        let values = host.to_i64().ok_or_else(|| {
            self.damaged(name, &format!("holds {:?}, expected I64", host.dtype()))
        })?;
        self.sized(name, values.len(), n)?;
        Ok(values.into_iter().map(i64::cast_unsigned).collect())
    }

    /// `n` whole numbers, all below a bound.
    ///
    /// # Errors
    /// As [`whole`](Self::whole), or if one is not below it.
    pub fn below(&mut self, name: &str, n: usize, bound: u64) -> Result<Vec<u64>> {
        let values = self.whole(name, n)?;
        match values.iter().find(|&&value| value >= bound) {
            Some(value) => Err(self.damaged(
                name,
                &format!("holds {value}, expected numbers below {bound}"),
            )),
            None => Ok(values),
        }
    }

    /// `n` finite numbers.
    ///
    /// # Errors
    /// If they are missing, or not as many, or one is not finite.
    pub fn numbers(&mut self, name: &str, n: usize) -> Result<Vec<f32>> {
        let host = self.take(name)?;
        let values = host.to_f32().ok_or_else(|| {
            self.damaged(name, &format!("holds {:?}, expected floats", host.dtype()))
        })?;
        self.sized(name, values.len(), n)?;
        match values.iter().position(|value| !value.is_finite()) {
            Some(i) => Err(self.damaged(
                name,
                &format!(
                    "holds {} at position {i}, expected finite numbers",
                    values[i]
                ),
            )),
            None => Ok(values),
        }
    }

    /// A flat tensor of `n` finite numbers.
    ///
    /// # Errors
    /// As [`numbers`](Self::numbers).
    pub fn tensor(&mut self, name: &str, n: usize, device: &Device) -> Result<Tensor<1>> {
        Ok(Tensor::from_data(
            TensorData::new(self.numbers(name, n)?, [n]),
            device,
        ))
    }

    /// Adam's moments of a tensor of `n` numbers.
    ///
    /// # Errors
    /// As [`numbers`](Self::numbers).
    pub fn moments(&mut self, name: &str, n: usize, device: &Device) -> Result<Moments> {
        let mut part = |kind: &str| self.tensor(&format!("{name}.{kind}"), n, device);
        Ok(Moments {
            m: part("m")?,
            v: part("v")?,
        })
    }

    fn sized(&self, name: &str, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(self.damaged(name, &format!("holds {found} numbers, expected {expected}")))
    }

    /// All that is left, finite numbers by name; `n` of them.
    ///
    /// # Errors
    /// If there are more or fewer, or a number is not finite.
    pub fn rest(mut self, n: usize, device: &Device) -> Result<BTreeMap<String, Tensor<1>>> {
        let names: Vec<String> = self.tensors.keys().cloned().collect();
        if names.len() != n {
            let all = format!("{} tensors", names.len());
            return Err(self.damaged(&all, &format!("are there, expected {n}")));
        }
        let one = |name: String| {
            let size = self.tensors.get(&name).map_or(0, HostTensor::len);
            let tensor = self.tensor(&name, size, device)?;
            Ok((name, tensor))
        };
        names.into_iter().map(one).collect()
    }

    /// That everything has been read.
    ///
    /// # Errors
    /// If a tensor is left over: the state is another one's.
    pub fn end(self) -> Result<()> {
        match self.tensors.keys().next() {
            Some(left) => Err(self.damaged(left, "is not part of this run's state")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> Tensors {
        let mut snapshot = Snapshot::new();
        snapshot.count("done", u64::MAX - 1);
        snapshot.whole("ids", &[3, 1 << 60]);
        snapshot.numbers("rows", &[0.5, -1.0]);
        let zeros = Tensor::<1>::zeros([2], &Device::flex());
        snapshot.moments("rows", &Moments::zeros_like(&zeros));
        snapshot.into_tensors()
    }

    fn read(tensors: Tensors) -> Result<(u64, Vec<u64>, Vec<f32>)> {
        let mut stored = Stored::of("search", tensors);
        let all = (
            stored.count("done")?,
            stored.below("ids", 2, 1 << 61)?,
            stored.numbers("rows", 2)?,
        );
        stored.moments("rows", 2, &Device::flex())?;
        stored.end()?;
        Ok(all)
    }

    #[test]
    fn a_state_comes_back_to_the_last_bit() {
        // Neither number survives an f32, nor would the second survive an f64.
        assert_eq!(
            read(state()).unwrap(),
            (u64::MAX - 1, vec![3, 1 << 60], vec![0.5, -1.0])
        );
    }

    #[test]
    fn what_is_missing_misshapen_foreign_or_not_finite_is_named() {
        let names: Vec<String> = state().keys().cloned().collect();
        assert_eq!(names.len(), 5);
        for name in names {
            let said = |change: &dyn Fn(&mut Tensors)| {
                let mut tensors = state();
                change(&mut tensors);
                let error = read(tensors).unwrap_err();
                assert!(
                    error
                        .hint()
                        .is_some_and(|hint| hint.contains("--overwrite"))
                );
                error.to_string()
            };
            let missing = said(&|tensors| drop(tensors.remove(&name)));
            assert!(
                missing.contains("`search`") && missing.contains(&format!("`{name}` is missing")),
                "{missing}"
            );
            let longer = said(&|tensors| {
                let other = match tensors[&name].to_i64() {
                    Some(_) => HostTensor::from_i64([3], &[1, 2, 3]),
                    None => HostTensor::from_f32([3], &[1.0, 2.0, 3.0]),
                };
                tensors.insert(name.clone(), other);
            });
            assert!(
                longer.contains(&format!("`{name}` holds 3 numbers")),
                "{longer}"
            );
            let other = said(&|tensors| {
                let other = match tensors[&name].to_i64() {
                    Some(_) => HostTensor::from_f32([2], &[1.0, 2.0]),
                    None => HostTensor::from_f32([2], &[f32::NAN, 2.0]),
                };
                tensors.insert(name.clone(), other);
            });
            assert!(other.contains(&format!("`{name}` holds")), "{other}");
        }
        let mut more = state();
        more.insert("x".into(), HostTensor::from_f32([1], &[0.0]));
        assert!(
            read(more)
                .unwrap_err()
                .to_string()
                .contains("`x` is not part")
        );
        let all = || {
            Snapshot::into_tensors({
                let mut sums = Snapshot::new();
                sums.numbers("a", &[1.0]);
                sums.numbers("b", &[2.0, 3.0]);
                sums
            })
        };
        let rest =
            |n: usize, tensors: Tensors| Stored::of("sums", tensors).rest(n, &Device::flex());
        assert_eq!(rest(2, all()).unwrap().len(), 2);
        assert!(
            rest(3, all())
                .unwrap_err()
                .to_string()
                .contains("expected 3")
        );
        let mut nan = all();
        nan.insert("b".into(), HostTensor::from_f32([1], &[f32::NAN]));
        assert!(rest(2, nan).unwrap_err().to_string().contains("`b` holds"));
        // Part of a state is named as it stands in the whole.
        let mut whole = Snapshot::new();
        whole.extend("carried.", state());
        let mut whole = Stored::of("search", whole.into_tensors());
        let mut part = Stored::part("search", "carried.", whole.split("carried."));
        assert!(whole.end().is_ok());
        assert!(
            part.count("x")
                .unwrap_err()
                .to_string()
                .contains("`carried.x` is missing")
        );
        let mut wide = state();
        wide.insert("ids".into(), HostTensor::from_i64([2], &[1, -1]));
        assert!(
            read(wide).unwrap_err().to_string().contains("below"),
            "a negative number is a very large one"
        );
    }
}
