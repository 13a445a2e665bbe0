//! The modules of each crate, and which file of a crate names what of which other file.
//!
//! A name is followed through `use` declarations to the file that defines it: a `mod.rs` that only passes names on is not
//! imported by anybody. Only names count; a call of a method of a value that was handed over is not seen.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::Source;
use super::tokens::{self, Import, Named, Path};

/// Longest chain of imports that is followed.
const CHAIN: usize = 16;

/// One crate: its files by their index in the list of sources.
pub struct Crate {
    /// Directory of the package.
    pub place: String,
    /// Files in the order in which they were found.
    pub files: Vec<File>,
    modules: BTreeMap<Path, Module>,
}

/// One file of a crate.
pub struct File {
    /// Path below the root.
    pub path: String,
    /// Its module.
    pub module: Path,
    /// Its syntax.
    pub syntax: syn::File,
    /// What it names.
    pub named: Named,
}

#[derive(Default)]
struct Module {
    /// Index of the file it stands in.
    file: usize,
    names: BTreeMap<String, Path>,
    globs: Vec<Path>,
}

/// Every crate that has a `src/lib.rs` or a `src/main.rs`.
pub fn crates(sources: &[Source]) -> Result<Vec<Crate>, String> {
    let by_path: BTreeMap<String, &Source> = sources.iter().map(|s| (s.path.display().to_string(), s)).collect();
    let roots = by_path.keys().filter_map(|path| {
        let place = path.strip_suffix("/src/lib.rs").or_else(|| path.strip_suffix("/src/main.rs"))?;
        Some((place.to_string(), path.clone()))
    });
    roots.map(|(place, root)| read_crate(place, &root, &by_path)).collect()
}

fn read_crate(place: String, root: &str, sources: &BTreeMap<String, &Source>) -> Result<Crate, String> {
    let mut all = Crate { place, files: Vec::new(), modules: BTreeMap::new() };
    let mut open = vec![(root.to_string(), Path::new())];
    while let Some((path, module)) = open.pop() {
        let Some(source) = sources.get(&path) else { return Err(format!("{path}: a module without a file")) };
        let text = source.lines.join("\n");
        let syntax = syn::parse_file(&text).map_err(|e| format!("{path}: {e}"))?;
        let named = tokens::read(&text).ok_or_else(|| format!("{path}: no tokens"))?;
        all.modules.insert(module.clone(), Module { file: all.files.len(), ..Module::default() });
        children(&syntax.items, &path, &module, &mut |item| match item {
            Child::File(candidates, child) => {
                let found = candidates.into_iter().find(|candidate| sources.contains_key(candidate));
                open.push((found.unwrap_or_default(), child));
            }
            Child::Inline(child) => {
                all.modules.insert(child, Module { file: all.files.len(), ..Module::default() });
            }
        });
        all.files.push(File { path, module, syntax, named });
    }
    all.bind();
    Ok(all)
}

enum Child {
    File([String; 2], Path),
    Inline(Path),
}

/// The modules that items declare, code for tests left out.
fn children(items: &[syn::Item], path: &str, module: &Path, take: &mut impl FnMut(Child)) {
    for item in items {
        let syn::Item::Mod(item) = item else { continue };
        if item.attrs.iter().any(is_test) {
            continue;
        }
        let mut child = module.clone();
        child.push(item.ident.to_string());
        match &item.content {
            Some((_, inner)) => {
                take(Child::Inline(child.clone()));
                children(inner, path, &child, take);
            }
            None => take(Child::File(candidates(path, &item.ident.to_string()), child)),
        }
    }
}

/// True for `#[test]` and `#[cfg(test)]`.
pub fn is_test(attribute: &syn::Attribute) -> bool {
    let cfg = |list: &syn::MetaList| list.path.is_ident("cfg") && list.tokens.to_string().contains("test");
    match &attribute.meta {
        syn::Meta::Path(path) => path.segments.last().is_some_and(|segment| segment.ident == "test"),
        syn::Meta::List(list) => cfg(list),
        syn::Meta::NameValue(_) => false,
    }
}

/// Where the file of a module may lie.
fn candidates(parent: &str, name: &str) -> [String; 2] {
    let (folder, file) = parent.rsplit_once('/').unwrap_or(("", parent));
    let dir = match file {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_string(),
        _ => format!("{folder}/{}", file.trim_end_matches(".rs")),
    };
    [format!("{dir}/{name}.rs"), format!("{dir}/{name}/mod.rs")]
}

impl Crate {
    /// Takes over what each module imports.
    fn bind(&mut self) {
        let mut found = Vec::new();
        for file in &self.files {
            for import in &file.named.imports {
                let mut here = file.module.clone();
                here.extend(import.inside.clone());
                found.push((here, import));
            }
        }
        let bound: Vec<(Path, Option<String>, Path)> = found
            .into_iter()
            .filter_map(|(here, Import { path, name, .. })| {
                let to = self.absolute(&here, path)?;
                Some((here, name.clone(), to))
            })
            .collect();
        for (here, name, path) in bound {
            let Some(module) = self.modules.get_mut(&here) else { continue };
            match name {
                Some(name) => drop(module.names.insert(name, path)),
                None => module.globs.push(path),
            }
        }
    }

    /// A path from the root of the crate; `None` when it leads out of it.
    fn absolute(&self, here: &Path, path: &[String]) -> Option<Path> {
        let mut base = match path.first()?.as_str() {
            "crate" => Path::new(),
            "self" => here.clone(),
            "super" => here[..here.len().checked_sub(1)?].to_vec(),
            first => {
                let mut child = here.clone();
                child.push(first.to_string());
                let bound = self.modules.get(here).is_some_and(|module| module.names.contains_key(first));
                return (bound || self.modules.contains_key(&child)).then(|| [here.as_slice(), path].concat());
            }
        };
        let mut rest = &path[1..];
        while rest.first().is_some_and(|segment| segment == "super") {
            base.pop()?;
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The file that defines what an absolute path names.
    fn definition(&self, path: &[String], chain: usize) -> Option<usize> {
        if chain == 0 {
            return None;
        }
        let mut here = Path::new();
        for (at, segment) in path.iter().enumerate() {
            let module = self.modules.get(&here)?;
            let mut child = here.clone();
            child.push(segment.clone());
            if self.modules.contains_key(&child) {
                here = child;
                continue;
            }
            let rest = &path[at + 1..];
            if let Some(target) = module.names.get(segment).filter(|target| **target != path[..=at]) {
                return self.definition(&[target.as_slice(), rest].concat(), chain - 1);
            }
            if self.files[module.file].defines(segment) {
                return Some(module.file);
            }
            let through = module.globs.iter().find_map(|glob| {
                let target = [glob.as_slice(), &path[at..]].concat();
                self.definition(&target, chain - 1).filter(|file| self.files[*file].defines(segment))
            });
            return through.or(Some(module.file));
        }
        self.modules.get(&here).map(|module| module.file)
    }

    /// For each file the other files of the crate that it names.
    pub fn edges(&self) -> Vec<BTreeSet<usize>> {
        self.files.iter().enumerate().map(|(own, file)| self.edges_of(own, file)).collect()
    }

    fn edges_of(&self, own: usize, file: &File) -> BTreeSet<usize> {
        // What a file imports for others only, to pass it on, it does not need itself.
        let used = |name: &String| file.named.identifiers.contains_key(name);
        let imports = file.named.imports.iter().filter(|i| !i.public || i.name.as_ref().is_some_and(used));
        let imports = imports.map(|i| (&i.inside, &i.path));
        let paths = file.named.paths.iter().map(|(inside, path)| (inside, path));
        let mut found: BTreeSet<usize> = imports
            .chain(paths)
            .filter_map(|(inside, path)| {
                let here = [file.module.as_slice(), inside].concat();
                self.definition(&self.absolute(&here, path)?, CHAIN)
            })
            .collect();
        found.remove(&own);
        found
    }
}

impl File {
    /// The folder of its module: `a/b.rs` with `a/b/` belongs to `a/b`.
    pub fn folder(&self, all: &[File]) -> String {
        let stem = self.path.trim_end_matches(".rs");
        let inner = format!("{stem}/");
        if all.iter().any(|other| other.path.starts_with(&inner)) {
            return stem.to_string();
        }
        self.path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_string())
    }

    fn defines(&self, name: &str) -> bool {
        fn among(items: &[syn::Item], name: &str) -> bool {
            items.iter().any(|item| match item {
                syn::Item::Mod(module) => module.content.as_ref().is_some_and(|(_, inner)| among(inner, name)),
                other => super::items::name(other).is_some_and(|ident| ident == name),
            })
        }
        among(&self.syntax.items, name)
    }
}
