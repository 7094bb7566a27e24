//! Layers: tensors whose names begin alike, and how much each of them changed.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::figures::Distance;
use super::report::LayerChange;

/// What separates the parts of a name: `encoder.layer.3.weight`, `encoder/layer_3/kernel`.
const SEPARATORS: [char; 2] = ['.', '/'];

/// The part of a tensor's name that names its layer.
///
/// All up to the first number (`encoder.layer.3`, `layer_3`), else all but the last part
/// (`embeddings.word`), else the name.
fn layer_of(name: &str) -> &str {
    let mut start = 0;
    while let Some(length) = name[start..].find(SEPARATORS) {
        let end = start + length;
        if is_numbered(&name[start..end]) {
            return &name[..end];
        }
        start = end + 1;
    }
    name[..start].strip_suffix(SEPARATORS).filter(|layer| !layer.is_empty()).unwrap_or(name)
}

/// `3`, or `layer_3`.
fn is_numbered(part: &str) -> bool {
    let number = part.rsplit('_').next().unwrap_or(part);
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// A name by which layers are sorted as people count: `layer.2` before `layer.10`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Natural(String);

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut a, mut b) = (self.0.as_str(), other.0.as_str());
        while !a.is_empty() && !b.is_empty() {
            let ((text_a, number_a, rest_a), (text_b, number_b, rest_b)) = (split(a), split(b));
            let numbers = || {
                let (a, b) = (number_a.trim_start_matches('0'), number_b.trim_start_matches('0'));
                a.len().cmp(&b.len()).then_with(|| a.cmp(b))
            };
            match text_a.cmp(text_b).then_with(numbers) {
                Ordering::Equal => (a, b) = (rest_a, rest_b),
                unequal => return unequal,
            }
        }
        // Equal but for zeros in front, perhaps: then they are not the same name.
        a.len().cmp(&b.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What is before the first number, the number, and the rest.
fn split(text: &str) -> (&str, &str, &str) {
    let digit = |c: char| c.is_ascii_digit();
    let start = text.find(digit).unwrap_or(text.len());
    let end = text[start..].find(|c| !digit(c)).map_or(text.len(), |length| start + length);
    (&text[..start], &text[start..end], &text[end..])
}

/// What became of a tensor.
pub(super) enum Fate {
    /// The same, also under another name.
    Same,
    /// In numbers or shape, and how far where that was measured.
    Changed(Option<Distance>),
    Added,
    Removed,
}

#[derive(Default)]
struct Sums {
    tensors: u64,
    bytes: u64,
    changed: u64,
    changed_bytes: u64,
    added: u64,
    removed: u64,
    distance: Distance,
}

/// Layers as tensors are put into them.
#[derive(Default)]
pub(super) struct Layers {
    sums: BTreeMap<Natural, Sums>,
}

impl Layers {
    /// Counts a tensor of `bytes`; of one that is gone none are left.
    pub fn put(&mut self, name: &str, bytes: u64, fate: &Fate) {
        let sums = self.sums.entry(Natural(layer_of(name).to_owned())).or_default();
        sums.tensors += 1;
        match fate {
            Fate::Removed => sums.removed += 1,
            Fate::Added => {
                sums.added += 1;
                sums.changed_bytes += bytes;
            }
            Fate::Same => {}
            Fate::Changed(distance) => {
                sums.changed += 1;
                sums.changed_bytes += bytes;
                distance.iter().for_each(|distance| sums.distance.merge(distance));
            }
        }
        if !matches!(fate, Fate::Removed) {
            sums.bytes += bytes;
        }
    }

    /// Those in which something changed.
    pub fn finish(self) -> Vec<LayerChange> {
        let changed = |sums: &Sums| sums.changed + sums.added + sums.removed != 0;
        let layers = self.sums.into_iter().filter(|(_, sums)| changed(sums));
        let change = |(Natural(layer), sums): (Natural, Sums)| LayerChange {
            layer,
            tensors: sums.tensors,
            bytes: sums.bytes,
            changed: sums.changed,
            changed_bytes: sums.changed_bytes,
            added: sums.added,
            removed: sums.removed,
            relative_l2: sums.distance.relative_l2(),
            max_abs: sums.distance.max_abs(),
        };
        layers.map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_named_up_to_its_number() {
        for (name, layer) in [
            ("encoder.layer.11.attention.self.query.weight", "encoder.layer.11"),
            ("model.layers.3.mlp.experts.7.w1.weight", "model.layers.3"),
            ("blk.0.attn_q.weight", "blk.0"),
            ("bert/encoder/layer_0/kernel", "bert/encoder/layer_0"),
            ("embeddings.word_embeddings.weight", "embeddings.word_embeddings"),
            ("classifier.bias", "classifier"),
            ("conv1.weight", "conv1"),
            ("fc.0", "fc"),
            ("onnx::MatMul_123", "onnx::MatMul_123"),
            ("weight", "weight"),
            ("", ""),
            (".weight", ".weight"),
            ("a..b", "a."),
            ("größe.3.ß", "größe.3"),
        ] {
            assert_eq!(layer_of(name), layer, "{name}");
        }
    }

    #[test]
    fn layers_come_in_the_order_that_people_count_in() {
        let mut names: Vec<Natural> =
            ["b.10", "b.2", "b.02", "a", "b", "b.1", "b.10.x", "c.9", "B"]
                .map(|name| Natural(name.to_owned()))
                .into();
        names.sort();
        let names: Vec<_> = names.iter().map(|name| name.0.as_str()).collect();
        assert_eq!(names, ["B", "a", "b", "b.1", "b.02", "b.2", "b.10", "b.10.x", "c.9"]);
    }

    #[test]
    fn a_layer_counts_what_became_of_its_tensors() {
        let mut layers = Layers::default();
        let mut distance = Distance::default();
        distance.add(&[3.0, 4.0], &[3.0, 9.0]);
        layers.put("l.1.a", 10, &Fate::Same);
        layers.put("l.1.b", 20, &Fate::Changed(Some(distance)));
        layers.put("l.1.c", 30, &Fate::Changed(None));
        layers.put("l.1.d", 40, &Fate::Added);
        layers.put("l.1.e", 50, &Fate::Removed);
        layers.put("l.0.a", 60, &Fate::Same);
        let found = layers.finish();
        let [layer] = &found[..] else { panic!("{found:?}") };
        assert_eq!((layer.layer.as_str(), layer.tensors, layer.bytes), ("l.1", 5, 100));
        assert_eq!((layer.changed, layer.changed_bytes), (2, 90));
        assert_eq!((layer.added, layer.removed), (1, 1));
        assert_eq!((layer.relative_l2, layer.max_abs), (Some(1.0), Some(5.0)));
    }
}
