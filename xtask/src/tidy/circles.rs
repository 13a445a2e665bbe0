//! Import circles: sets of files of a crate of which each reaches each other by imports.

use std::collections::BTreeSet;

/// The circles of a graph (strongly connected components of two or more), each in ascending order, the largest first.
pub fn circles(edges: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let reach: Vec<BTreeSet<usize>> = (0..edges.len()).map(|from| reachable(edges, from)).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for node in 0..edges.len() {
        let circle: Vec<usize> = reach[node].iter().copied().filter(|other| reach[*other].contains(&node)).collect();
        if circle.len() > 1 && circle.iter().all(|member| seen.insert(*member)) {
            found.push(circle);
        }
    }
    found.sort_by_key(|circle: &Vec<usize>| std::cmp::Reverse(circle.len()));
    found
}

/// Everything that can be reached from a node by one edge or more.
fn reachable(edges: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(node) = open.pop() {
        open.extend(edges[node].iter().filter(|next| found.insert(**next)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_found() {
        let edges = [&[1][..], &[2], &[0], &[2, 4], &[3], &[0]].map(|to| to.iter().copied().collect());
        assert_eq!(circles(&edges), [vec![0, 1, 2], vec![3, 4]]);
    }
}
