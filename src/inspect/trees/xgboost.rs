//! XGBoost: one document, in JSON or UBJSON, whose trees are columns of numbers.
//!
//! Read value by value: what a tree takes is counted before the next one begins.
//! Source: `doc/model.schema` of XGBoost, `src/tree/tree_model.cc`.

use std::fmt;
use std::mem::{size_of, take};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::Stop;
use super::super::reader::Reader;
use super::super::stream::Stream;
use super::ubjson::Ubjson;
use super::{Builder, Split, Test, Tree, TreeNode};

/// Features of a model without names for them.
const FEATURE_COUNT_MAX: u64 = 1_000_000;

/// Reads a model in JSON.
pub(super) fn read_json(reader: &mut Reader<'_>, into: &mut Builder) -> Result<(), Stop> {
    let mut model = Model::new(into);
    let range = 0..reader.bytes();
    let mut stream = Stream::new(reader, range);
    let mut json = serde_json::Deserializer::from_reader(&mut stream);
    let read = At { place: Place::Root, model: &mut model }.deserialize(&mut json);
    match (read.and_then(|()| json.end()), model.stopped.take()) {
        (Ok(()), _) => model.finish(),
        (Err(_), Some(stop)) => Err(stop),
        (Err(_), None) => Err(stream.reason("it is no JSON as XGBoost writes it")),
    }
}

/// Reads a model in UBJSON.
pub(super) fn read_ubjson(reader: &mut Reader<'_>, into: &mut Builder) -> Result<(), Stop> {
    let mut model = Model::new(into);
    let read = At { place: Place::Root, model: &mut model }.deserialize(&mut Ubjson::new(reader));
    match (read, model.stopped.take()) {
        (Ok(()), _) => model.finish(),
        (Err(_), Some(stop)) => Err(stop),
        (Err(error), None) => Err(error.into_stop()),
    }
}

/// Where in the document a value stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Nothing of interest.
    Elsewhere,
    Root,
    Version,
    Learner,
    FeatureNames,
    FeatureKinds,
    /// `gradient_booster`, and the one within it where trees are dropped.
    Booster,
    InnerBooster,
    BoosterName,
    TreeWeights,
    BoosterModel,
    TreeGroups,
    Trees,
    Tree,
    TreeParameters,
    Column(Column),
    Objective,
    ObjectiveName,
    /// An object of names and texts, those of a user with a prefix.
    Parameters,
    Attributes,
}

/// The columns of a tree, with a number for each node unless it says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Value,
    LeftDefault,
    Left,
    Right,
    Gain,
    Threshold,
    Feature,
    Kind,
    Cover,
    /// Categories of all nodes that ask for such, and of each such node: its index, where in those
    /// its own begin, and how many.
    Categories,
    CategoryNodes,
    CategoryStarts,
    CategoryCounts,
    /// Where a leaf adds to several outputs: so many numbers for each.
    LeafVectors,
}

const COLUMN_COUNT: usize = Column::LeafVectors as usize + 1;

impl Place {
    /// Where the value called `key` in an object stands.
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Root, "learner") => Self::Learner,
            (Self::Root, "version") => Self::Version,
            (Self::Learner, "feature_names") => Self::FeatureNames,
            (Self::Learner, "feature_types") => Self::FeatureKinds,
            (Self::Learner, "gradient_booster") => Self::Booster,
            (Self::Learner, "learner_model_param") => Self::Parameters,
            (Self::Learner, "attributes") => Self::Attributes,
            (Self::Learner, "objective") => Self::Objective,
            (Self::Objective, "name") => Self::ObjectiveName,
            // Each kind of objective has one object of parameters, of a name of its own.
            (Self::Objective, _) => Self::Parameters,
            (Self::Booster, "name") => Self::BoosterName,
            (Self::Booster, "gbtree") => Self::InnerBooster,
            (Self::Booster, "weight_drop") => Self::TreeWeights,
            (Self::Booster | Self::InnerBooster, "model") => Self::BoosterModel,
            (Self::BoosterModel, "gbtree_model_param") => Self::Parameters,
            (Self::BoosterModel, "tree_info") => Self::TreeGroups,
            (Self::BoosterModel, "trees") => Self::Trees,
            (Self::Tree, key) => match key {
                "base_weights" => Self::Column(Column::Value),
                "default_left" => Self::Column(Column::LeftDefault),
                "left_children" => Self::Column(Column::Left),
                "right_children" => Self::Column(Column::Right),
                "loss_changes" => Self::Column(Column::Gain),
                "split_conditions" => Self::Column(Column::Threshold),
                "split_indices" => Self::Column(Column::Feature),
                "split_type" => Self::Column(Column::Kind),
                "sum_hessian" => Self::Column(Column::Cover),
                "categories" => Self::Column(Column::Categories),
                "categories_nodes" => Self::Column(Column::CategoryNodes),
                "categories_segments" => Self::Column(Column::CategoryStarts),
                "categories_sizes" => Self::Column(Column::CategoryCounts),
                "leaf_weights" => Self::Column(Column::LeafVectors),
                "tree_param" => Self::TreeParameters,
                _ => Self::Elsewhere,
            },
            _ => Self::Elsewhere,
        }
    }

    /// Where the values of an array stand.
    fn within(self) -> Self {
        if self == Self::Trees { Self::Tree } else { self }
    }
}

/// A model that is being read.
struct Model<'a> {
    into: &'a mut Builder,
    /// The name of the text that is read.
    key: String,
    version: Vec<String>,
    kinds: Vec<String>,
    groups: Vec<u32>,
    weights: Vec<f64>,
    columns: [Vec<f64>; COLUMN_COUNT],
    /// Numbers that one leaf of the tree has.
    leaf_size: usize,
    /// What a limit or a check of ours said.
    stopped: Option<Stop>,
}

impl<'a> Model<'a> {
    fn new(into: &'a mut Builder) -> Self {
        into.ensemble.library = "xgboost".to_owned();
        Self {
            into,
            key: String::new(),
            version: Vec::new(),
            kinds: Vec::new(),
            groups: Vec::new(),
            weights: Vec::new(),
            columns: Default::default(),
            leaf_size: 1,
            stopped: None,
        }
    }

    fn add_text(&mut self, place: Place, text: &str) -> Result<(), Stop> {
        match place {
            Place::FeatureNames => self.into.add_feature(text)?,
            Place::FeatureKinds => {
                self.into.spend(size_of::<String>() + text.len())?;
                self.kinds.push(text.to_owned());
            }
            Place::BoosterName => self.into.ensemble.booster = text.to_owned(),
            Place::ObjectiveName => self.into.ensemble.objective = text.to_owned(),
            Place::Parameters => self.into.add_parameter(&self.key, text)?,
            Place::TreeParameters if self.key == "size_leaf_vector" => {
                self.leaf_size = text.parse().unwrap_or(0).max(1);
            }
            Place::Attributes => {
                self.into.add_parameter(&format!("attributes.{}", self.key), text)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn add_number(&mut self, place: Place, number: f64) -> Result<(), Stop> {
        match place {
            Place::Version if self.version.len() < 4 => self.version.push(number.to_string()),
            Place::TreeGroups => {
                self.into.spend(size_of::<u32>())?;
                self.groups.push(number as u32);
            }
            Place::TreeWeights => {
                self.into.spend(size_of::<f64>())?;
                self.weights.push(single(number));
            }
            Place::Column(column) => {
                self.into.spend(size_of::<f64>())?;
                self.columns[column as usize].push(number);
            }
            _ => {}
        }
        Ok(())
    }

    fn column(&self, column: Column) -> &[f64] {
        &self.columns[column as usize]
    }

    /// Makes a tree of the columns that were read.
    fn end_tree(&mut self) -> Result<(), Stop> {
        let count = self.column(Column::Left).len();
        let node_bytes = count.saturating_mul(size_of::<TreeNode>());
        self.into.spend(node_bytes)?;
        let needed =
            [Column::Right, Column::Gain, Column::Threshold, Column::Feature, Column::Cover];
        if needed.iter().any(|column| self.column(*column).len() != count) {
            return Err(Stop::Malformed("a tree has not as many numbers as nodes"));
        }
        let mut nodes = Vec::with_capacity(count);
        for index in 0..count {
            let node = self.node(index)?;
            if let Some(Split { left_if: Test::NotAmong(categories), .. }) = &node.split {
                self.into.spend(size_of_val(&categories[..]))?;
            }
            nodes.push(node);
        }
        // The columns go, the nodes stay.
        let column_bytes: usize = self.columns.iter().map(|it| size_of_val(&it[..])).sum();
        self.columns.iter_mut().for_each(|column| drop(take(column)));
        self.into.give_back(column_bytes);
        self.into.add_tree(Tree { group: 0, weight: 1.0, nodes })
    }

    fn node(&self, index: usize) -> Result<TreeNode, Stop> {
        let number = |column: Column| self.column(column).get(index).copied().unwrap_or(0.0);
        let (left, right) = (number(Column::Left), number(Column::Right));
        let cover = single(number(Column::Cover));
        let vectors = self.column(Column::LeafVectors);
        if left < 0.0 {
            let value = match vectors.is_empty() {
                true => single(number(Column::Threshold)),
                // The number of the leaf stands where a split has its right child.
                false => {
                    let own = vectors.chunks_exact(self.leaf_size).nth(right as usize);
                    own.map_or(0.0, |own| own.iter().copied().map(single).sum())
                }
            };
            return Ok(TreeNode { split: None, value, cover, count: None });
        }
        let value = if vectors.is_empty() { single(number(Column::Value)) } else { 0.0 };
        let left_if = match number(Column::Kind) {
            0.0 => Test::Below(single(number(Column::Threshold))),
            _ => Test::NotAmong(self.categories(index)?),
        };
        let split = Split {
            feature: number(Column::Feature) as u32,
            left_if,
            default_left: number(Column::LeftDefault) != 0.0,
            gain: single(number(Column::Gain)),
            children: [left as u32, right as u32],
        };
        Ok(TreeNode { split: Some(split), value, cover, count: None })
    }

    /// The categories that send a row right at the node with this index.
    fn categories(&self, node: usize) -> Result<Vec<u32>, Stop> {
        let nodes = self.column(Column::CategoryNodes);
        let place = nodes.binary_search_by(|it| it.total_cmp(&(node as f64))).ok();
        let number = |column: Column| self.column(column).get(place?).map(|it| *it as usize);
        let start = number(Column::CategoryStarts);
        let end = start.zip(number(Column::CategoryCounts));
        let end = end.and_then(|(start, count)| start.checked_add(count));
        let range = start.zip(end).map(|(start, end)| start..end);
        let found = range.and_then(|range| self.column(Column::Categories).get(range));
        let wrong = Stop::Malformed("a tree asks for categories that it does not list");
        Ok(found.ok_or(wrong)?.iter().map(|it| *it as u32).collect())
    }

    /// Puts together what stands in several places.
    fn finish(self) -> Result<(), Stop> {
        let ensemble = &mut self.into.ensemble;
        ensemble.version = self.version.join(".");
        for (feature, kind) in ensemble.features.iter_mut().zip(self.kinds) {
            feature.kind = kind;
        }
        for (index, tree) in ensemble.trees.iter_mut().enumerate() {
            tree.group = self.groups.get(index).copied().unwrap_or(0);
            tree.weight = self.weights.get(index).copied().unwrap_or(1.0);
        }
        let number = |name: &str| -> u64 {
            ensemble.parameters.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        ensemble.group_count = number("num_class").max(number("num_target")).max(1);
        let feature_count = number("num_feature").min(FEATURE_COUNT_MAX);
        let named = ensemble.features.len() as u64;
        for index in named..feature_count {
            self.into.add_feature(&format!("f{index}"))?;
        }
        Ok(())
    }
}

/// A number of single precision, whichever way it was written.
fn single(number: f64) -> f64 {
    f64::from(number as f32)
}

/// A value at its place in the document.
struct At<'m, 'a> {
    place: Place,
    model: &'m mut Model<'a>,
}

impl At<'_, '_> {
    /// The same failure as the parser's and as ours.
    fn keep<E: Error>(self, result: Result<(), Stop>) -> Result<(), E> {
        result.map_err(|stop| {
            self.model.stopped = Some(stop);
            E::custom("stopped")
        })
    }
}

impl<'de> DeserializeSeed<'de> for At<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.place {
            Place::Elsewhere => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for At<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what XGBoost writes there")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { place, model } = self;
        while let Some(key) = map.next_key::<String>()? {
            let below = match place {
                Place::Parameters | Place::Attributes | Place::TreeParameters => place,
                place => place.below(&key),
            };
            model.key = key;
            map.next_value_seed(At { place: below, model })?;
        }
        match place {
            Place::Tree => {
                let ended = model.end_tree();
                At { place, model }.keep(ended)
            }
            _ => Ok(()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let Self { place, model } = self;
        while values.next_element_seed(At { place: place.within(), model })?.is_some() {}
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let added = self.model.add_text(self.place, text);
        self.keep(added)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        let added = self.model.add_number(self.place, number);
        self.keep(added)
    }

    fn visit_f32<E: Error>(self, number: f32) -> Result<(), E> {
        self.visit_f64(number.into())
    }

    // No whole number of a model is past 2^53.
    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.visit_f64(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::path::Path;

    use super::super::super::InspectError;
    use super::super::{Ensemble, ensemble};
    use super::*;

    const TREE: &str = r#"{"base_weights":[0.5,-1,2,3],"categories":[1,4],"categories_nodes":[0],
        "categories_segments":[0],"categories_sizes":[2],"default_left":[1,0,0,0],"id":0,
        "left_children":[1,-1,-1,-1],"loss_changes":[7.5,0,0,0],"parents":[2147483647,0,0,0],
        "right_children":[3,-1,-1,-1],"split_conditions":[0.1,-0.1,2,0.3],"split_indices":[1,0,2147483647,0],
        "split_type":[1,0,0,0],"sum_hessian":[30,10,0,20],"tree_param":{"num_nodes":"4","size_leaf_vector":"1"}}"#;

    fn document(trees: &str) -> String {
        format!(
            r#"{{"learner":{{"attributes":{{"best_iteration":"3"}},"feature_names":["age","city"],
            "feature_types":["float","c"],"gradient_booster":{{"gbtree":{{"model":{{"cats":{{"enc":[]}},
            "gbtree_model_param":{{"num_parallel_tree":"1","num_trees":"2"}},"tree_info":[0,1],
            "trees":[{trees}]}},"name":"gbtree"}},"name":"dart","weight_drop":[1,0.25]}},
            "learner_model_param":{{"base_score":"5E-1","num_class":"2","num_feature":"3"}},
            "objective":{{"name":"multi:softprob","softmax_multiclass_param":{{"num_class":"2"}}}}}},
            "version":[3,2,0]}}"#
        )
    }

    fn read(document: &str) -> Result<Ensemble, InspectError> {
        ensemble(OsStr::new("model.json"), &document.as_bytes())
    }

    #[test]
    fn xgboost_gives_trees_without_the_nodes_that_were_pruned() {
        let found = read(&document(&format!("{TREE},{TREE}"))).expect("a model");
        assert_eq!((&*found.version, &*found.booster), ("3.2.0", "dart"));
        assert_eq!((&*found.objective, found.group_count), ("multi:softprob", 2));
        assert_eq!(found.parameters["attributes.best_iteration"], "3");
        assert_eq!(found.parameters["base_score"], "5E-1");
        let features: Vec<_> = found.features.iter().map(|it| (&*it.name, &*it.kind)).collect();
        assert_eq!(features, [("age", "float"), ("city", "c"), ("f2", "")]);
        let placed: Vec<_> = found.trees.iter().map(|tree| (tree.group, tree.weight)).collect();
        assert_eq!(placed, [(0, 1.0), (1, 0.25)]);
        let leaf = |value: f32, cover| TreeNode {
            split: None,
            value: f64::from(value),
            cover,
            count: None,
        };
        let split = Split {
            feature: 1,
            left_if: Test::NotAmong(vec![1, 4]),
            default_left: true,
            gain: 7.5,
            children: [1, 2],
        };
        let root = TreeNode { split: Some(split), value: 0.5, cover: 30.0, count: None };
        assert_eq!(found.trees[0].nodes, [root, leaf(-0.1, 10.0), leaf(0.3, 20.0)]);
    }

    #[test]
    fn both_encodings_give_the_same_trees() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
        for (name, tree_count) in [("xgboost", 4), ("xgboost-dart", 9), ("xgboost-categories", 2)] {
            let read = |extension: &str| {
                let path = folder.join(name).with_extension(extension);
                let file = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                ensemble(OsStr::new("model"), &file.as_slice()).expect("a model")
            };
            let found = read("json");
            assert_eq!(found.trees.len(), tree_count, "{name}");
            assert_eq!(read("ubj"), found, "{name}");
        }
    }

    #[test]
    fn an_xgboost_document_that_lies_is_refused() {
        for (from, to) in [
            ("left_children\":[1", "left_children\":[0"),
            ("left_children\":[1", "left_children\":[3"),
            ("left_children\":[1", "left_children\":[9"),
            ("left_children\":[1", "left_children\":[1e300"),
            ("right_children\":[3", "right_children\":[3,3"),
            ("categories_sizes\":[2", "categories_sizes\":[3"),
            ("categories_sizes\":[2", "categories_sizes\":[1e300"),
            ("categories_nodes\":[0", "categories_nodes\":[1"),
            ("sum_hessian\":[30", "sum_hessian\":[30,3"),
            ("sum_hessian\":[30", "sum_hessian\":[x"),
        ] {
            assert!(TREE.contains(from), "{from}");
            let found = read(&document(&TREE.replace(from, to)));
            assert!(matches!(found, Err(InspectError::Malformed { .. })), "{to}: {found:?}");
        }
        let deep = format!(r#"{{"learner":{{"trees":{}"#, "[".repeat(100_000));
        assert!(read(&deep).is_err());
        let whole = document(TREE);
        assert!((0..whole.len()).all(|length| read(&whole[..length]).is_err()));
    }
}
