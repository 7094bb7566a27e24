//! Boosted trees: what XGBoost and LightGBM write, in one form.
//!
//! Invariant B1: the nodes of a tree are reached from its root, the first one, each on one way: a
//! child stands once and is never the root, so that a walk ends.

mod lightgbm;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::mem::size_of;

use super::reader::Reader;
use super::{InspectError, ReadAt, Stop, TABLE_BYTES_MAX, kind_of};

/// Trees of a boosted model, and what the file says of how they came about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ensemble {
    /// `xgboost` or `lightgbm`.
    pub library: String,
    /// Of the library, or of its format where the file only says that.
    pub version: String,
    /// How trees were made: `gbtree`, `dart`, `gbdt`, …
    pub booster: String,
    /// With its own parameters, as the file has it: `binary:logistic`, `binary sigmoid:1`.
    pub objective: String,
    /// Everything else that has a name and a value.
    pub parameters: BTreeMap<String, String>,
    /// In the order of their indices. Named by those where the file has no names.
    pub features: Vec<Feature>,
    /// Trees that are added in one round: one a class.
    pub group_count: u64,
    /// For each feature 1, -1 or 0: predictions only rise, only fall, or may do either as it grows.
    /// Empty where the file does not say.
    pub monotone: Vec<i32>,
    /// Indices of features that may stand together on one way through a tree. Empty: all of them, or
    /// the file does not say.
    pub interactions: Vec<Vec<u32>>,
    pub trees: Vec<Tree>,
}

/// A column of the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feature {
    pub name: String,
    /// As the file has it, such as `float` or `[0:5]`; may be empty.
    pub kind: String,
}

/// One tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// Which of the outputs it adds to.
    pub group: u32,
    /// What its leaves were or are to be multiplied with.
    pub weight: f64,
    /// The root first (B1).
    pub nodes: Vec<TreeNode>,
}

/// A leaf, or a question with two answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TreeNode {
    /// `None`: a leaf.
    pub split: Option<Split>,
    /// What a leaf adds; what this node would add if it were one.
    pub value: f64,
    /// Sum of the hessians of the training rows that came here.
    pub cover: f64,
    /// Those rows, where the file counts them.
    pub count: Option<u64>,
}

/// How a node sends rows on.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub feature: u32,
    pub left_if: Test,
    /// Whether rows without a value go left.
    pub default_left: bool,
    pub gain: f64,
    /// Left and right, as indices of nodes.
    pub children: [u32; 2],
}

/// What is true of a value that goes left.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    Below(f64),
    AtMost(f64),
    /// It is one of these categories.
    Among(Vec<u32>),
    NotAmong(Vec<u32>),
}

/// Reads the trees of a file called `name`.
///
/// # Errors
/// `Unknown` for files of other formats, `Malformed`, and `Io` from reading it.
pub fn ensemble(name: &OsStr, file: &dyn ReadAt) -> Result<Ensemble, InspectError> {
    let format = kind_of(file, name)?;
    let reader = &mut Reader::of_whole(file);
    let mut builder = Builder::keeping();
    let read = match format {
        "lightgbm" => lightgbm::read(reader, &mut builder),
        _ => Err(Stop::Unknown),
    };
    match read {
        Ok(()) => Ok(builder.ensemble),
        Err(stop) => Err(stop.of(format)),
    }
}

/// An ensemble that is being read, within its limit.
pub(super) struct Builder {
    pub ensemble: Ensemble,
    bytes_left: usize,
}

impl Builder {
    /// Keeps the trees.
    pub fn keeping() -> Self {
        Self { ensemble: Ensemble::default(), bytes_left: TABLE_BYTES_MAX }
    }

    /// Trees so far.
    pub fn tree_count(&self) -> u64 {
        self.ensemble.trees.len() as u64
    }

    /// Counts memory.
    pub fn spend(&mut self, bytes: usize) -> Result<(), Stop> {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or(Stop::Malformed("its trees are too large"))?;
        Ok(())
    }

    /// Keeps something that has a name.
    pub fn add_parameter(&mut self, name: &str, value: &str) -> Result<(), Stop> {
        self.spend(size_of::<String>() * 4 + name.len() + value.len())?;
        self.ensemble.parameters.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    pub fn add_feature(&mut self, name: &str) -> Result<(), Stop> {
        self.spend(size_of::<Feature>() + name.len())?;
        self.ensemble.features.push(Feature { name: name.to_owned(), kind: String::new() });
        Ok(())
    }

    /// Adds a tree whose nodes were counted by [`Builder::spend`].
    pub fn add_tree(&mut self, tree: Tree) -> Result<(), Stop> {
        self.spend(size_of::<Tree>())?;
        check_nodes(&tree.nodes)?;
        self.ensemble.trees.push(tree);
        Ok(())
    }
}

/// Checks that the nodes are a tree (B1).
fn check_nodes(nodes: &[TreeNode]) -> Result<(), Stop> {
    let mut has_parent = vec![false; nodes.len()];
    let children = nodes.iter().filter_map(|node| node.split.as_ref()).flat_map(|it| it.children);
    for child in children {
        match has_parent.get_mut(child as usize) {
            Some(seen) if child != 0 && !*seen => *seen = true,
            _ => return Err(Stop::Malformed("the nodes of a tree are no tree")),
        }
    }
    Ok(())
}
