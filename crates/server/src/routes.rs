//! What a route is, and how a request finds one.
//!
//! A pattern is the inventory's: literal segments and one `{variable}` per gap. A variable may span several segments
//! (image names have slashes); of several patterns that match, the one with the most literal segments wins, and a
//! variable takes as few segments as it can from the right.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hyper::Method;
use model::Result;

use crate::hijack::Hijack;
use crate::request::Request;
use crate::response::Response;

/// What a handler ends with.
pub enum Outcome {
    /// An answer.
    Response(Response),
    /// The connection leaves HTTP.
    Hijack(Hijack),
}

impl From<Response> for Outcome {
    fn from(response: Response) -> Outcome {
        Outcome::Response(response)
    }
}

/// A running handler.
pub type Running = Pin<Box<dyn Future<Output = Result<Outcome>> + Send>>;

/// Who answers a route.
pub enum Handler<S: 'static> {
    /// Implemented.
    Run(fn(Arc<S>, Request) -> Running),
    /// Known, but not implemented: 501.
    NotYet,
    /// Needs swarm mode, which is never on: 503.
    NeedsSwarm,
    /// Likewise; what the reference checks before is checked.
    Swarmless(fn(Arc<S>, Request) -> Running),
    /// Only in experimental mode, and not implemented.
    Experimental,
    /// Only in debug mode.
    Debug(fn(Arc<S>, Request) -> Running),
    /// Belongs to another listener or protocol; no route of the API.
    Elsewhere,
}

/// One row of the table.
pub struct Route<S: 'static> {
    /// As in the inventory.
    pub method: &'static str,
    /// As in the inventory.
    pub path: &'static str,
    /// The minor version that brought the route; older clients may use it too, as with the reference.
    pub since: u32,
    /// Who answers.
    pub handler: Handler<S>,
}

/// The route of a request and the values of the pattern's variables.
pub fn find<'r, S>(routes: &'r [Route<S>], method: &Method, path: &str) -> Option<(&'r Route<S>, Vec<String>)> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    routes
        .iter()
        .filter(|route| route.method == method.as_str() && !matches!(route.handler, Handler::Elsewhere))
        .filter_map(|route| {
            let pattern: Vec<&str> = route.path.strip_prefix('/')?.split('/').collect();
            let mut vars = Vec::new();
            matches(&pattern, &segments, &mut vars).then(|| {
                vars.reverse();
                (literals(&pattern), route, vars)
            })
        })
        .max_by_key(|(literals, ..)| *literals)
        .map(|(_, route, vars)| (route, vars))
}

fn is_variable(segment: &str) -> bool {
    segment.starts_with('{')
}

fn literals(pattern: &[&str]) -> usize {
    pattern.iter().filter(|segment| !is_variable(segment)).count()
}

/// Matches from the right; the values are collected last first.
fn matches(pattern: &[&str], segments: &[&str], vars: &mut Vec<String>) -> bool {
    let Some((last, pattern)) = pattern.split_last() else { return segments.is_empty() };
    if !is_variable(last) {
        return segments.split_last().is_some_and(|(end, rest)| end == last && matches(pattern, rest, vars));
    }
    for count in 1..=segments.len() {
        let (rest, taken) = segments.split_at(segments.len() - count);
        let depth = vars.len();
        vars.push(taken.join("/"));
        if matches(pattern, rest, vars) {
            return true;
        }
        vars.truncate(depth);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn route(method: &'static str, path: &'static str) -> Route<()> {
        Route { method, path, since: 24, handler: Handler::NotYet }
    }

    const ROUTES: &[Route<()>] = &[
        route("GET", "/containers/json"),
        route("GET", "/containers/{name}/json"),
        route("DELETE", "/containers/{name}"),
        route("DELETE", "/containers/{name}/checkpoints/{checkpoint}"),
        route("GET", "/images/{name}/get"),
        route("GET", "/images/get"),
        route("GET", "/images/{name}/json"),
        route("GET", "/networks"),
        route("GET", "/networks/"),
        route("GET", "/networks/{id}"),
        route("OPTIONS", "/{anyroute:.*}"),
    ];

    fn found(method: Method, path: &str) -> Option<(&'static str, Vec<String>)> {
        find(ROUTES, &method, path).map(|(route, vars)| (route.path, vars))
    }

    #[test]
    fn literal_segments_win() {
        assert_eq!(found(Method::GET, "/containers/json"), Some(("/containers/json", vec![])));
        assert_eq!(found(Method::GET, "/images/get"), Some(("/images/get", vec![])));
        assert_eq!(found(Method::GET, "/networks/"), Some(("/networks/", vec![])));
        assert_eq!(found(Method::GET, "/networks/x"), Some(("/networks/{id}", vec!["x".into()])));
    }

    #[test]
    fn names_may_have_slashes() {
        let vars = vec!["localhost:5000/a/b:1".to_owned()];
        assert_eq!(found(Method::GET, "/images/localhost:5000/a/b:1/json"), Some(("/images/{name}/json", vars)));
        assert_eq!(found(Method::DELETE, "/containers//web"), Some(("/containers/{name}", vec!["/web".into()])));
        let two = vec!["a".to_owned(), "b".to_owned()];
        let path = "/containers/{name}/checkpoints/{checkpoint}";
        assert_eq!(found(Method::DELETE, "/containers/a/checkpoints/b"), Some((path, two)));
    }

    #[test]
    fn other_methods_and_paths_have_no_route() {
        assert_eq!(found(Method::PATCH, "/containers/json"), None);
        assert_eq!(found(Method::GET, "/nothing"), None);
        assert_eq!(found(Method::GET, "/containers/json/"), None);
        assert_eq!(found(Method::OPTIONS, "/any/thing").map(|(path, _)| path), Some("/{anyroute:.*}"));
    }
}
