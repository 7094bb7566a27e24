//! LightGBM: a text of lines `name=value`: a head, a part for each tree, the parameters.
//!
//! Source: `gbdt_model_text.cpp` and `tree.cpp` of LightGBM, version 4 of its format.

use std::collections::HashMap;
use std::mem::size_of;
use std::str::FromStr;

use super::super::Stop;
use super::super::reader::Reader;
use super::{Builder, Split, Test, Tree, TreeNode};

/// Bytes of the longest line: the numbers of all nodes of a tree.
const LINE_BYTES_MAX: usize = 16 << 20;
/// A decision, by bits: whether it asks for categories, whether what has no value goes left.
const CATEGORICAL: u8 = 1;
const DEFAULT_LEFT: u8 = 2;
/// Bits of one word of a set of categories.
const WORD_BITS: u32 = 32;
/// How the lines begin that count here.
const TREE: &str = "Tree=";
const PARAMETERS: &str = "parameters:";

/// Reads a model.
pub(super) fn read(reader: &mut Reader<'_>, into: &mut Builder) -> Result<(), Stop> {
    let mut lines = Lines { reader, at: 0 };
    into.ensemble.library = "lightgbm".to_owned();
    into.ensemble.booster = "gbdt".to_owned();
    let mut next = read_head(&mut lines, into)?;
    while next.as_ref().is_some_and(|line| line.starts_with(TREE)) {
        let (fields, end) = read_fields(&mut lines)?;
        let groups = into.ensemble.group_count.max(1);
        let group = u32::try_from(into.ensemble.trees.len() as u64 % groups).unwrap_or(u32::MAX);
        let tree = tree_of(&fields, group, into)?;
        into.add_tree(tree)?;
        next = end;
    }
    read_parameters(&mut lines, into)
}

/// The lines of a text, one at a time.
struct Lines<'a, 'b> {
    reader: &'a mut Reader<'b>,
    at: u64,
}

impl Lines<'_, '_> {
    /// The next line without its end; `None` behind the last one.
    fn next(&mut self) -> Result<Option<String>, Stop> {
        let line = self.reader.line(&mut self.at, LINE_BYTES_MAX)?;
        Ok(line.map(|line| String::from_utf8_lossy(line.trim_ascii_end()).into_owned()))
    }
}

/// Reads up to the first tree; the line that begins it.
fn read_head(lines: &mut Lines<'_, '_>, into: &mut Builder) -> Result<Option<String>, Stop> {
    let mut feature_count = 0;
    while let Some(line) = lines.next()? {
        if line.starts_with(TREE) || line == "end of trees" {
            // A file may leave names out where it has the count.
            for index in into.ensemble.features.len()..feature_count {
                into.add_feature(&format!("Column_{index}"))?;
            }
            return Ok(Some(line));
        }
        let Some((name, value)) = line.split_once('=') else {
            // The flag of a forest: its trees are averaged, not added.
            if line == "average_output" {
                into.ensemble.booster = "rf".to_owned();
            }
            continue;
        };
        match name {
            "version" => into.ensemble.version = value.to_owned(),
            "objective" => into.ensemble.objective = value.to_owned(),
            "num_tree_per_iteration" => into.ensemble.group_count = number(value)?,
            "max_feature_idx" => feature_count = number::<u16>(value)? as usize + 1,
            "feature_names" => {
                for name in value.split_ascii_whitespace() {
                    into.add_feature(name)?;
                }
            }
            "feature_infos" => {
                for (feature, kind) in
                    into.ensemble.features.iter_mut().zip(value.split_ascii_whitespace())
                {
                    feature.kind = kind.to_owned();
                }
                into.spend(value.len())?;
            }
            "monotone_constraints" => {
                into.spend(2 * value.len())?;
                into.ensemble.monotone = numbers(value)?;
            }
            "tree_sizes" => {}
            _ => into.add_parameter(name, value)?,
        }
    }
    Ok(None)
}

/// The lines of one tree by their names.
type Fields = HashMap<String, String>;

/// Reads the lines of a tree; those, and the line behind them.
fn read_fields(lines: &mut Lines<'_, '_>) -> Result<(Fields, Option<String>), Stop> {
    /// Lines of a tree; there are about twenty.
    const FIELD_COUNT_MAX: usize = 64;
    let mut fields = Fields::new();
    while let Some(line) = lines.next()? {
        if line.starts_with(TREE) || line == "end of trees" {
            return Ok((fields, Some(line)));
        }
        if let Some((name, value)) = line.split_once('=') {
            if FIELD_COUNT_MAX <= fields.len() {
                return Err(Stop::Malformed("a tree has too many lines"));
            }
            fields.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok((fields, None))
}

/// The tree that its lines say.
fn tree_of(fields: &Fields, group: u32, into: &mut Builder) -> Result<Tree, Stop> {
    let text = |name: &str| fields.get(name).map_or("", String::as_str);
    let leaf_count: usize = number(text("num_leaves"))?;
    let split_count = leaf_count.saturating_sub(1);
    let node_bytes = size_of::<TreeNode>();
    // Believed only if there are as many numbers: each takes a byte of the line at least.
    if text("leaf_value").len() < leaf_count {
        return Err(Stop::Malformed("a tree has less leaves than it says"));
    }
    into.spend((leaf_count + split_count).saturating_mul(node_bytes))?;
    let column = |name: &str, count: usize| -> Result<Vec<f64>, Stop> {
        let values: Vec<f64> = numbers(text(name))?;
        match values.len() {
            found if found == count => Ok(values),
            // A tree of one leaf says nothing but its value.
            0 => Ok(vec![0.0; count]),
            _ => Err(Stop::Malformed("a tree has not as many numbers as nodes")),
        }
    };
    let mut nodes = splits_of(fields, split_count, into)?;
    let (values, covers) =
        (column("internal_value", split_count)?, column("internal_weight", split_count)?);
    let counts: Vec<u64> = numbers(text("internal_count"))?;
    let leaves = (column("leaf_value", leaf_count)?, column("leaf_weight", leaf_count)?);
    let leaf_counts: Vec<u64> = numbers(text("leaf_count"))?;
    for (index, node) in nodes.iter_mut().enumerate() {
        (node.value, node.cover) = (values[index], covers[index]);
        node.count = counts.get(index).copied();
    }
    for (index, (value, cover)) in leaves.0.into_iter().zip(leaves.1).enumerate() {
        nodes.push(TreeNode { split: None, value, cover, count: leaf_counts.get(index).copied() });
    }
    let weight = if text("shrinkage").is_empty() { 1.0 } else { number(text("shrinkage"))? };
    Ok(Tree { group, weight, nodes })
}

/// The nodes that are no leaves. Leaves stand behind them; the file numbers those from -1 down.
fn splits_of(
    fields: &Fields,
    split_count: usize,
    into: &mut Builder,
) -> Result<Vec<TreeNode>, Stop> {
    let text = |name: &str| fields.get(name).map_or("", String::as_str);
    let features: Vec<u32> = numbers(text("split_feature"))?;
    let gains: Vec<f64> = numbers(text("split_gain"))?;
    let thresholds: Vec<f64> = numbers(text("threshold"))?;
    let decisions: Vec<u8> = numbers(text("decision_type"))?;
    let left: Vec<i32> = numbers(text("left_child"))?;
    let right: Vec<i32> = numbers(text("right_child"))?;
    let lengths = [features.len(), gains.len(), thresholds.len(), decisions.len()];
    if lengths.iter().chain(&[left.len(), right.len()]).any(|length| *length != split_count) {
        return Err(Stop::Malformed("a tree has not as many numbers as nodes"));
    }
    let sets =
        Sets { ends: numbers(text("cat_boundaries"))?, words: numbers(text("cat_threshold"))? };
    let child = |number: i32| -> Result<u32, Stop> {
        let index = match usize::try_from(number) {
            Ok(split) => Some(split),
            Err(_negative) => split_count.checked_add(!number as usize),
        };
        let index = index.and_then(|index| u32::try_from(index).ok());
        index.ok_or(Stop::Malformed("a tree has too many nodes"))
    };
    let mut nodes = Vec::with_capacity(split_count);
    for index in 0..split_count {
        let decision = decisions[index];
        let left_if = match decision & CATEGORICAL {
            0 => Test::AtMost(thresholds[index]),
            _ => Test::Among(sets.get(thresholds[index], into)?),
        };
        let split = Split {
            feature: features[index],
            left_if,
            default_left: decision & DEFAULT_LEFT != 0,
            gain: gains[index],
            children: [child(left[index])?, child(right[index])?],
        };
        nodes.push(TreeNode { split: Some(split), ..TreeNode::default() });
    }
    Ok(nodes)
}

/// Sets of categories as bits.
struct Sets {
    /// Where each set begins and the one before it ends, in words.
    ends: Vec<usize>,
    words: Vec<u32>,
}

impl Sets {
    /// The set with this number.
    fn get(&self, number: f64, into: &mut Builder) -> Result<Vec<u32>, Stop> {
        let wrong = || Stop::Malformed("a tree asks for categories that it does not list");
        // A float that is no index is larger than any.
        let index = number as usize;
        let start = *self.ends.get(index).ok_or_else(wrong)?;
        let end = *index.checked_add(1).and_then(|next| self.ends.get(next)).ok_or_else(wrong)?;
        let words = self.words.get(start..end).ok_or_else(wrong)?;
        let count: u32 = words.iter().map(|word| word.count_ones()).sum();
        into.spend(4 * count as usize)?;
        let mut set = Vec::with_capacity(count as usize);
        for (place, word) in (0_u32..).zip(words) {
            let bits = (0..WORD_BITS).filter(|bit| word >> bit & 1 == 1);
            set.extend(bits.map(|bit| place.saturating_mul(WORD_BITS).saturating_add(bit)));
        }
        Ok(set)
    }
}

/// Reads what is behind the trees: importances, which the trees tell, and parameters.
fn read_parameters(lines: &mut Lines<'_, '_>, into: &mut Builder) -> Result<(), Stop> {
    let mut is_inside = false;
    while let Some(line) = lines.next()? {
        is_inside |= line == PARAMETERS;
        if line == "end of parameters" {
            break;
        }
        let entry = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
        let Some((name, value)) = entry.and_then(|entry| entry.split_once(": ")) else { continue };
        if !is_inside {
            continue;
        }
        match name {
            "boosting" => into.ensemble.booster = value.to_owned(),
            "interaction_constraints" => {
                into.spend(8 * value.len())?;
                into.ensemble.interactions = groups(value)?;
            }
            _ => {}
        }
        into.add_parameter(name, value)?;
    }
    Ok(())
}

/// `[0,1],[2,3]` as lists.
fn groups(text: &str) -> Result<Vec<Vec<u32>>, Stop> {
    let groups = text.split('[').skip(1).map(|group| group.trim_end_matches([',', ']']));
    groups.map(|group| group.split(',').filter(|it| !it.is_empty()).map(number).collect()).collect()
}

fn number<T: FromStr>(text: &str) -> Result<T, Stop> {
    text.parse().map_err(|_not_a_number| Stop::Malformed("a number is none"))
}

fn numbers<T: FromStr>(text: &str) -> Result<Vec<T>, Stop> {
    text.split_ascii_whitespace().map(number).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::super::super::InspectError;
    use super::super::{Ensemble, ensemble};
    use super::*;

    const HEAD: &str = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=1\n\
        objective=binary sigmoid:1\nfeature_names=age city\nmonotone_constraints=1 0\n\
        feature_infos=[0:90] 0:1:2\ntree_sizes=10 20\n\n";
    const TREE: &str = "Tree=0\nnum_leaves=3\nnum_cat=1\nsplit_feature=1 0\nsplit_gain=20 10.5\n\
        threshold=0 41.5\ndecision_type=1 2\nleft_child=1 -1\nright_child=-3 -2\nleaf_value=0.1 -0.2 0.3\n\
        leaf_weight=1 2 3\nleaf_count=10 20 30\ninternal_value=0 0.05\ninternal_weight=6 3\n\
        internal_count=60 30\ncat_boundaries=0 2\ncat_threshold=5 2\nis_linear=0\nshrinkage=0.1\n\n\n";
    const TAIL: &str = "end of trees\n\nfeature_importances:\nage=1\n\nparameters:\n[boosting: dart]\n\
        [num_leaves: 3]\n[interaction_constraints: [0,1],[1]]\n\nend of parameters\n\n";

    fn read_text(text: &str) -> Result<Ensemble, InspectError> {
        ensemble(OsStr::new("model.txt"), &text.as_bytes())
    }

    #[test]
    fn lightgbm_gives_trees_with_their_leaves_behind_their_splits() {
        let found = read_text(&[HEAD, TREE, TAIL].concat()).expect("a model");
        assert_eq!((found.booster.as_str(), found.version.as_str()), ("dart", "v4"));
        assert_eq!(found.objective, "binary sigmoid:1");
        let features: Vec<_> = found.features.iter().map(|it| (&*it.name, &*it.kind)).collect();
        assert_eq!(features, [("age", "[0:90]"), ("city", "0:1:2")]);
        assert_eq!((found.monotone, found.interactions), (vec![1, 0], vec![vec![0, 1], vec![1]]));
        assert_eq!(found.parameters["num_leaves"], "3");
        let [tree] = &found.trees[..] else { panic!("{:?}", found.trees) };
        assert_eq!((tree.group, tree.weight, tree.nodes.len()), (0, 0.1, 5));
        let root = tree.nodes[0].split.as_ref().unwrap();
        assert_eq!((root.feature, root.children), (1, [1, 4]));
        assert_eq!(root.left_if, Test::Among(vec![0, 2, 33]));
        let below = tree.nodes[1].split.as_ref().unwrap();
        assert_eq!((&below.left_if, below.children), (&Test::AtMost(41.5), [2, 3]));
        assert!(!root.default_left && below.default_left);
        let leaf = &tree.nodes[4];
        assert_eq!((leaf.value, leaf.cover, leaf.count), (0.3, 3.0, Some(30)));
    }

    #[test]
    fn a_tree_of_one_leaf_has_no_splits() {
        let stump = "Tree=0\nnum_leaves=1\nnum_cat=0\nsplit_feature=\nsplit_gain=\nthreshold=\n\
            decision_type=\nleft_child=\nright_child=\nleaf_value=0.5\nleaf_weight=\nleaf_count=\n\
            shrinkage=1\n";
        let found = read_text(&[HEAD, stump, TAIL].concat()).expect("a model");
        assert_eq!(found.trees[0].nodes, [TreeNode { value: 0.5, ..TreeNode::default() }]);
    }

    #[test]
    fn a_lightgbm_text_that_lies_is_refused() {
        for (from, to) in [
            ("num_leaves=3", "num_leaves=18446744073709551615"),
            ("num_leaves=3", "num_leaves=4"),
            ("left_child=1 -1", "left_child=0 -1"),
            ("left_child=1 -1", "left_child=1 -3"),
            ("left_child=1 -1", "left_child=1 -2147483648"),
            ("threshold=0 41.5", "threshold=1 41.5"),
            ("threshold=0 41.5", "threshold=1e300 41.5"),
            ("cat_boundaries=0 2", "cat_boundaries=2 0"),
            ("cat_boundaries=0 2", "cat_boundaries=0 3"),
            ("split_gain=20 10.5", "split_gain=20"),
            ("split_gain=20 10.5", "split_gain=20 x"),
        ] {
            assert!(TREE.contains(from), "{from}");
            let found = read_text(&[HEAD, &TREE.replace(from, to), TAIL].concat());
            assert!(matches!(found, Err(InspectError::Malformed { .. })), "{to}: {found:?}");
        }
        let cut = [HEAD, TREE, TAIL].concat();
        for length in 0..cut.len() {
            drop(read_text(&cut[..length]));
        }
    }
}
