//! Boosted trees: which of them are still there, and what the features are asked for.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::metadata::{Named, changes_of};
use super::report::{EnsembleChange, EnsembleSide, FeatureChange, FeatureUse, LISTED_MAX};
use crate::inspect::{Ensemble, Test, Tree};

/// What changed from one ensemble to another.
pub(super) fn compare(path: String, before: &Ensemble, after: &Ensemble) -> EnsembleChange {
    let (old, new) = (digests(before), digests(after));
    let kept_first = old.iter().zip(&new).take_while(|(old, new)| old == new).count() as u64;
    let mut left: HashMap<blake3::Hash, u64> = HashMap::new();
    for digest in &old {
        *left.entry(*digest).or_default() += 1;
    }
    let mut kept = 0;
    for digest in &new {
        if let Some(count) = left.get_mut(digest).filter(|count| 0 < **count) {
            *count -= 1;
            kept += 1;
        }
    }
    EnsembleChange {
        path,
        trees_kept: kept,
        trees_kept_first: kept_first,
        trees_added: new.len() as u64 - kept,
        trees_removed: old.len() as u64 - kept,
        before: side(before),
        after: side(after),
        parameters: changes_of(parameters(before), parameters(after)),
        constraints: changes_of(constraints(before), constraints(after)),
        features: features(before, after),
    }
}

fn side(of: &Ensemble) -> EnsembleSide {
    let nodes = || of.trees.iter().flat_map(|tree| &tree.nodes);
    let splits = nodes().filter(|node| node.split.is_some()).count() as u64;
    EnsembleSide {
        library: of.library.clone(),
        trees: of.trees.len() as u64,
        splits,
        leaves: nodes().count() as u64 - splits,
        depth_max: of.trees.iter().map(depth).max().unwrap_or(0),
    }
}

/// Splits on the longest way from the root to a leaf. Nodes are a tree, so each is met once.
fn depth(tree: &Tree) -> u64 {
    let mut open = vec![(0_u32, 0_u64)];
    let mut deepest = 0;
    while let Some((node, depth)) = open.pop() {
        deepest = deepest.max(depth);
        let split = tree.nodes.get(node as usize).and_then(|node| node.split.as_ref());
        open.extend(split.iter().flat_map(|split| split.children).map(|child| (child, depth + 1)));
    }
    deepest
}

/// The digest of each tree: equal where a tree asks the same of the same features, whatever their places,
/// and gives the same.
fn digests(of: &Ensemble) -> Vec<blake3::Hash> {
    of.trees.iter().map(|tree| digest(of, tree)).collect()
}

fn digest(of: &Ensemble, tree: &Tree) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut number = |number: u64| {
        hasher.update(&number.to_le_bytes());
    };
    number(tree.group.into());
    number(tree.weight.to_bits());
    let mut names = Vec::new();
    for node in &tree.nodes {
        let Some(split) = &node.split else {
            number(0);
            number(node.value.to_bits());
            continue;
        };
        names.push(name(of, split.feature));
        let (kind, set) = match &split.left_if {
            Test::Below(threshold) => (1, vec![threshold.to_bits()]),
            Test::AtMost(threshold) => (2, vec![threshold.to_bits()]),
            Test::Among(set) => (3, set.iter().map(|it| u64::from(*it)).collect()),
            Test::NotAmong(set) => (4, set.iter().map(|it| u64::from(*it)).collect()),
        };
        number(kind);
        number(u64::from(split.default_left));
        split.children.iter().for_each(|child| number((*child).into()));
        number(set.len() as u64);
        set.into_iter().for_each(&mut number);
    }
    for name in names {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
    }
    hasher.finalize()
}

/// The name of a feature, or its number where the file has no name for it.
fn name(of: &Ensemble, feature: u32) -> String {
    let found = of.features.get(feature as usize).map(|feature| feature.name.as_str());
    found.filter(|name| !name.is_empty()).map_or_else(|| feature.to_string(), str::to_owned)
}

fn parameters(of: &Ensemble) -> Named {
    let mut found: Named =
        of.parameters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    for (name, value) in [
        ("library", &of.library),
        ("library version", &of.version),
        ("booster", &of.booster),
        ("objective", &of.objective),
    ] {
        found.insert(name.to_owned(), json!(value));
    }
    found.insert("trees of a round".to_owned(), json!(of.group_count));
    // They have a list of their own.
    for constraint in ["monotone_constraints", "interaction_constraints"] {
        found.remove(constraint);
    }
    found
}

/// What the trees must obey, by the names of features.
fn constraints(of: &Ensemble) -> Named {
    let mut found = Named::new();
    for (feature, way) in (0..).zip(&of.monotone) {
        let way = match way {
            0 => continue,
            1.. => "rising",
            _ => "falling",
        };
        found.insert(name(of, feature), json!(way));
    }
    let group =
        |group: &Vec<u32>| -> Vec<String> { group.iter().map(|it| name(of, *it)).collect() };
    if !of.interactions.is_empty() {
        let groups: Vec<Value> = of.interactions.iter().map(|it| json!(group(it))).collect();
        found.insert("interactions".to_owned(), Value::Array(groups));
    }
    found
}

/// Gains and thresholds of the splits of a feature.
#[derive(Default)]
struct Uses {
    gains: Vec<f64>,
    thresholds: Vec<f64>,
}

fn uses(of: &Ensemble) -> BTreeMap<String, Uses> {
    let mut found: BTreeMap<String, Uses> = BTreeMap::new();
    let splits = of.trees.iter().flat_map(|tree| &tree.nodes).filter_map(|it| it.split.as_ref());
    for split in splits {
        let uses = found.entry(name(of, split.feature)).or_default();
        uses.gains.push(split.gain);
        match split.left_if {
            Test::Below(threshold) | Test::AtMost(threshold) => uses.thresholds.push(threshold),
            Test::Among(_) | Test::NotAmong(_) => {}
        }
    }
    found
}

impl From<Uses> for FeatureUse {
    fn from(uses: Uses) -> Self {
        let Uses { gains, thresholds } = uses;
        Self {
            splits: gains.len() as u64,
            gain: Some(gains.iter().sum()).filter(|gain: &f64| gain.is_finite()),
            gain_median: median(gains),
            threshold_median: median(thresholds),
        }
    }
}

/// The number in the middle, or what is between the two that are.
fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.retain(|number| number.is_finite());
    numbers.sort_unstable_by(f64::total_cmp);
    let (low, high) = (numbers.len().checked_sub(1)? / 2, numbers.len() / 2);
    Some(f64::midpoint(numbers[low], numbers[high]))
}

/// The features that are used in another way, those first that gain most now.
fn features(before: &Ensemble, after: &Ensemble) -> Vec<FeatureChange> {
    let (mut old, new) = (uses(before), uses(after));
    let mut changes: Vec<FeatureChange> = new
        .into_iter()
        .map(|(feature, uses)| {
            let before = old.remove(&feature).map(FeatureUse::from).unwrap_or_default();
            FeatureChange { feature, before, after: uses.into() }
        })
        .collect();
    changes.extend(old.into_iter().map(|(feature, uses)| FeatureChange {
        feature,
        before: uses.into(),
        after: FeatureUse::default(),
    }));
    changes.retain(|change| change.before != change.after);
    let gain = |change: &FeatureChange| change.after.gain.unwrap_or(0.0);
    changes.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
    changes.truncate(LISTED_MAX);
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{Feature, Split, TreeNode};

    /// A tree that asks once for `feature`.
    fn stump(feature: u32, threshold: f64, gain: f64, left: f64) -> Tree {
        let split = Split {
            feature,
            left_if: Test::Below(threshold),
            default_left: true,
            gain,
            children: [1, 2],
        };
        let leaf = |value| TreeNode { value, ..TreeNode::default() };
        let root = TreeNode { split: Some(split), ..TreeNode::default() };
        Tree { group: 0, weight: 1.0, nodes: vec![root, leaf(left), leaf(-left)] }
    }

    fn ensemble(features: &[&str], trees: Vec<Tree>) -> Ensemble {
        let feature = |name: &&str| Feature { name: (*name).to_owned(), kind: String::new() };
        Ensemble { features: features.iter().map(feature).collect(), trees, ..Ensemble::default() }
    }

    #[test]
    fn trees_are_kept_wherever_they_stand_and_however_features_are_numbered() {
        let before = ensemble(
            &["age", "city"],
            vec![stump(0, 30.0, 5.0, 0.1), stump(1, 2.0, 3.0, 0.2), stump(0, 40.0, 1.0, 0.3)],
        );
        let after = ensemble(
            &["city", "age"],
            vec![
                stump(1, 30.0, 5.0, 0.1),
                stump(1, 40.0, 1.0, 0.3),
                stump(1, 50.0, 9.0, 0.4),
                stump(1, 30.0, 5.0, 0.1),
            ],
        );
        let change = compare("m.json".into(), &before, &after);
        let counts = (change.trees_kept, change.trees_kept_first);
        assert_eq!((counts, change.trees_added, change.trees_removed), ((2, 1), 2, 1));
        assert_eq!((change.after.splits, change.after.leaves, change.after.depth_max), (4, 8, 1));
        let [age, city] = &change.features[..] else { panic!("{:?}", change.features) };
        assert_eq!((age.feature.as_str(), age.before.splits, age.after.splits), ("age", 2, 4));
        assert_eq!((age.before.gain, age.after.gain), (Some(6.0), Some(20.0)));
        assert_eq!((age.before.gain_median, age.after.gain_median), (Some(3.0), Some(5.0)));
        assert_eq!(
            (age.before.threshold_median, age.after.threshold_median),
            (Some(35.0), Some(35.0))
        );
        assert_eq!((city.before.splits, city.after.splits), (1, 0));
    }

    #[test]
    fn parameters_and_constraints_are_compared_by_name() {
        let mut before = ensemble(&["age", "city"], Vec::new());
        let mut after = before.clone();
        before.parameters.insert("eta".into(), "0.1".into());
        after.parameters.insert("eta".into(), "0.2".into());
        (before.monotone, after.monotone) = (vec![1, 0], vec![-1, 1]);
        after.interactions = vec![vec![0, 1]];
        let change = compare("m.json".into(), &before, &after);
        let keys: Vec<_> = change.constraints.iter().map(|it| it.key.as_str()).collect();
        assert_eq!(keys, ["age", "city", "interactions"]);
        assert_eq!(change.constraints[2].after, Some(json!([["age", "city"]])));
        assert_eq!(change.parameters.len(), 1);
    }
}
