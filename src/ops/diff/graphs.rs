//! Graphs of ONNX: which operators came and went, and what a graph takes and gives.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::metadata::{Named, changes_of, flat};
use super::report::{GraphChange, LISTED_MAX, OperatorChange};
use crate::inspect::{Dimension, OnnxDetails, OnnxNode, Port};

/// What changed in a graph; `None` where that is nothing but numbers.
pub(super) fn compare(
    path: String,
    before: &OnnxDetails,
    after: &OnnxDetails,
) -> Option<GraphChange> {
    let ports = |of: &OnnxDetails| -> (Named, Named) {
        let interface = of.interface();
        (named(&interface.inputs), named(&interface.outputs))
    };
    let ((old_inputs, old_outputs), (new_inputs, new_outputs)) = (ports(before), ports(after));
    let (old, new) = (names(&before.initializers), names(&after.initializers));
    let missing = |from: &BTreeSet<&str>, of: &BTreeSet<&str>| -> Vec<String> {
        of.difference(from).take(LISTED_MAX).map(|name| (*name).to_owned()).collect()
    };
    let change = GraphChange {
        path,
        header: changes_of(header(before), header(after)),
        inputs: changes_of(old_inputs, new_inputs),
        outputs: changes_of(old_outputs, new_outputs),
        nodes_before: before.node_count,
        nodes_after: after.node_count,
        operators: operators(before, after),
        initializers_before: before.initializers.len() as u64,
        initializers_after: after.initializers.len() as u64,
        initializers_added: missing(&old, &new),
        initializers_removed: missing(&new, &old),
    };
    let GraphChange { header, inputs, outputs, operators, .. } = &change;
    let is_same = header.is_empty()
        && inputs.is_empty()
        && outputs.is_empty()
        && operators.is_empty()
        && change.initializers_added.is_empty()
        && change.initializers_removed.is_empty();
    (!is_same).then_some(change)
}

fn names(list: &[String]) -> BTreeSet<&str> {
    list.iter().map(String::as_str).collect()
}

/// What a model says of itself beside its graph.
fn header(of: &OnnxDetails) -> Named {
    flat(&json!({
        "domain": of.domain,
        "functions": of.functions,
        "graph": of.graph,
        "ir_version": of.ir_version,
        "metadata": of.metadata,
        "model_version": of.model_version,
        "opset": of.opsets,
        "producer": format!("{} {}", of.producer_name, of.producer_version).trim(),
    }))
}

/// Inputs or outputs with their types: `f32[batch, 10]`.
fn named(ports: &[Port]) -> Named {
    let dimension = |dimension: &Dimension| match dimension {
        Dimension::Size(size) => size.to_string(),
        Dimension::Name(name) => name.clone(),
        Dimension::Any(()) => "?".to_owned(),
    };
    let kind = |port: &Port| match &port.shape {
        Some(shape) => {
            let shape: Vec<String> = shape.iter().map(dimension).collect();
            format!("{}[{}]", port.dtype, shape.join(", "))
        }
        None => port.dtype.clone(),
    };
    ports.iter().map(|port| (port.name.clone(), Value::from(kind(port)))).collect()
}

/// The operators of which nodes came or went. A node that is wired in another way is both.
fn operators(before: &OnnxDetails, after: &OnnxDetails) -> Vec<OperatorChange> {
    let mut changes: BTreeMap<String, OperatorChange> = BTreeMap::new();
    let mut change = |domain: &str, operator: &str, apply: &dyn Fn(&mut OperatorChange)| {
        let key = format!("{domain}:{operator}");
        apply(changes.entry(key.clone()).or_insert_with(|| OperatorChange::of(key)));
    };
    for (domain, operator, count) in counts(before) {
        change(domain, operator, &|it| it.before = count);
    }
    for (domain, operator, count) in counts(after) {
        change(domain, operator, &|it| it.after = count);
    }
    let mut left: BTreeMap<NodeKey<'_>, u64> = BTreeMap::new();
    for node in &before.nodes {
        *left.entry(key(node)).or_default() += 1;
    }
    for node in &after.nodes {
        match left.get_mut(&key(node)).filter(|count| 0 < **count) {
            Some(count) => *count -= 1,
            None => change(&node.domain, &node.operator, &|it| it.added += 1),
        }
    }
    for ((domain, operator, ..), count) in left {
        change(domain, operator, &|it| it.removed += count);
    }
    let moved = |it: &OperatorChange| it.before != it.after || it.added + it.removed != 0;
    changes.into_values().filter(moved).collect()
}

fn counts(of: &OnnxDetails) -> impl Iterator<Item = (&str, &str, u64)> {
    of.operators.iter().flat_map(|(domain, counts)| {
        counts.iter().map(move |(name, count)| (domain.as_str(), name.as_str(), *count))
    })
}

/// What makes a node the same in both graphs; its name is no more than a name.
type NodeKey<'a> = (&'a str, &'a str, &'a [String], &'a [String], &'a [String]);

fn key(node: &OnnxNode) -> NodeKey<'_> {
    (&node.domain, &node.operator, &node.inputs, &node.outputs, &node.attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(operator: &str, inputs: &[&str], output: &str) -> OnnxNode {
        OnnxNode {
            domain: "ai.onnx".into(),
            operator: operator.into(),
            inputs: inputs.iter().map(|it| (*it).to_owned()).collect(),
            outputs: vec![output.into()],
            ..OnnxNode::default()
        }
    }

    fn graph(nodes: Vec<OnnxNode>) -> OnnxDetails {
        let mut graph = OnnxDetails { node_count: nodes.len() as u64, ..OnnxDetails::default() };
        for node in &nodes {
            let of = graph.operators.entry(node.domain.clone()).or_default();
            *of.entry(node.operator.clone()).or_default() += 1;
        }
        graph.nodes = nodes;
        graph
    }

    #[test]
    fn a_graph_is_told_by_its_nodes_ports_and_weights() {
        let port = |name: &str, size| Port {
            name: name.into(),
            dtype: "f32".into(),
            shape: Some(vec![Dimension::Name("batch".into()), Dimension::Size(size)]),
        };
        let mut before = graph(vec![
            node("MatMul", &["x", "w"], "a"),
            node("Relu", &["a"], "b"),
            node("Relu", &["b"], "y"),
        ]);
        before.opsets.insert("ai.onnx".into(), 17);
        before.inputs = vec![port("x", 10), port("w", 4)];
        before.initializers = vec!["w".into()];
        let mut after = graph(vec![
            node("MatMul", &["x", "v"], "a"),
            node("Relu", &["a"], "b"),
            node("Sigmoid", &["b"], "y"),
        ]);
        after.opsets.insert("ai.onnx".into(), 18);
        after.inputs = vec![port("x", 12)];
        after.initializers = vec!["v".into()];
        let change = compare("m.onnx".into(), &before, &after).expect("it changed");
        let operators: Vec<_> = change
            .operators
            .iter()
            .map(|it| (it.operator.as_str(), it.before, it.after, it.added, it.removed))
            .collect();
        assert_eq!(
            operators,
            [
                ("ai.onnx:MatMul", 1, 1, 1, 1),
                ("ai.onnx:Relu", 2, 1, 0, 1),
                ("ai.onnx:Sigmoid", 0, 1, 1, 0),
            ]
        );
        assert_eq!(change.header[0].key, "opset.ai.onnx");
        let input = &change.inputs[0];
        assert_eq!(
            (input.before.clone(), input.after.clone()),
            (Some(json!("f32[batch, 10]")), Some(json!("f32[batch, 12]")))
        );
        assert_eq!(
            (change.initializers_added, change.initializers_removed),
            (vec!["v".into()], vec!["w".into()])
        );
        assert_eq!(compare("m.onnx".into(), &before, &before), None);
    }
}
