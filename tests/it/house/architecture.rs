//! The import graph, read from the sources: layers in one order, imports only downwards, and no cycle
//! between files. Of the tests: none imports another one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};

/// The layers, from the top. What stands in one line does not import each other. `src/lib.rs` says what each
/// of them is for.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli", "ui"],
    &["cmd"],
    &["ops"],
    &["wire"],
    &["catalog", "config"],
    &["source"],
    &["pipeline"],
    &["archive"],
    &["ledger", "notify", "stage"],
    &["keys", "store"],
    &["cache", "domain", "rt"],
    &["concurrent", "fs"],
    &["blockfile", "ctx", "exit", "table"],
    &["aws", "error", "process", "version"],
];

/// A file as a module, and the modules whose names it uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Every file of a crate but the roots of `src`, by its module.
fn files(folder: &Path, module: &str, found: &mut BTreeMap<String, String>) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let child = if module.is_empty() { stem.clone() } else { format!("{module}::{stem}") };
        if path.is_dir() {
            files(&path, &child, found);
        } else if path.extension() == Some("rs".as_ref())
            && !(module.is_empty() && ["lib", "build"].contains(&stem.as_str()))
            && stem != "tests"
        {
            let name = if stem == "mod" { module.to_owned() } else { child };
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

/// Collects the paths that code of a file uses, but for its tests.
struct Paths<'a> {
    module: &'a str,
    found: BTreeSet<String>,
    /// Also those among the arguments of macros, which is where most calls of a test stand.
    in_macros: bool,
}

impl Paths<'_> {
    /// Notes a path as one from the root of the crate.
    fn note(&mut self, path: &[String]) {
        let parents: Vec<&str> = self.module.split("::").collect();
        let (skipped, base): (usize, Vec<&str>) = match path.first().map(String::as_str) {
            Some("crate") => (1, Vec::new()),
            // The program is a crate of its own.
            Some("bkp") if self.module == "main" => (1, Vec::new()),
            Some("self") => (1, parents),
            Some("super") => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                (ups, parents[..parents.len() - ups].to_vec())
            }
            // A child, or a name of another crate, which no file has.
            _ => (0, parents),
        };
        let rest = path[skipped..].iter().map(String::as_str);
        self.found.insert(base.into_iter().chain(rest).collect::<Vec<_>>().join("::"));
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.note(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.note(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.note(before),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.tree(item, before));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = item.attrs.iter().any(|attr| {
            attr.path().is_ident("cfg")
                && attr.parse_args::<syn::Ident>().is_ok_and(|of| of == "test")
        });
        if !is_test {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    /// What is no list of expressions (`matches!`) is not read.
    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        type List = Punctuated<syn::Expr, syn::Token![,]>;
        if self.in_macros
            && let Ok(list) = item.parse_body_with(List::parse_terminated)
        {
            // They live as long as this call only, so that a visitor of their own takes them.
            let mut inside = Paths { module: self.module, found: BTreeSet::new(), in_macros: true };
            list.iter().for_each(|expression| inside.visit_expr(expression));
            self.found.append(&mut inside.found);
        }
    }

    /// Who may see an item is no import.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        // One name alone is in scope already, by what was imported.
        if parts.len() > 1 {
            self.note(&parts);
        }
        visit::visit_path(self, path);
    }
}

/// The file that a path from the root leads into.
fn resolve<'p>(mut path: &'p str, files: &BTreeMap<String, String>) -> Option<&'p str> {
    while !files.contains_key(path) {
        path = path.rsplit_once("::")?.0;
    }
    Some(path)
}

fn graph() -> Graph {
    let mut files_of = BTreeMap::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files_of);
    graph_of(&files_of, false)
}

fn graph_of(files: &BTreeMap<String, String>, in_macros: bool) -> Graph {
    let imports = |module: &String, text: &String| {
        let mut paths = Paths { module, found: BTreeSet::new(), in_macros };
        paths.visit_file(&syn::parse_file(text).unwrap());
        let found = paths.found.iter().filter_map(|path| resolve(path, files));
        found.filter(|found| found != module).map(str::to_owned).collect()
    };
    files.iter().map(|(module, text)| (module.clone(), imports(module, text))).collect()
}

fn layer(module: &str) -> usize {
    let top = module.split("::").next().unwrap();
    let found = LAYERS.iter().position(|layer| layer.contains(&top));
    assert!(found.is_some(), "`{top}` is in no layer");
    found.unwrap()
}

/// Imports that do not lead downwards.
fn upward(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (module, imports) in graph {
        for import in imports {
            let is_same = module.split("::").next() == import.split("::").next();
            if !is_same && layer(module) >= layer(import) {
                found.push(format!("{module} imports {import}"));
            }
        }
    }
    found
}

/// Imports by a test of what is neither in `support` nor above or below itself, and imports of tests by `support`.
fn between_tests(graph: &Graph) -> Vec<String> {
    let is_in = |module: &str, folder: &str| {
        module.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let mut found = Vec::new();
    for (module, imports) in graph {
        let foreign = imports.iter().filter(|import| {
            !is_in(import, "support") && !is_in(module, import) && !is_in(import, module)
        });
        found.extend(foreign.map(|import| format!("{module} imports {import}")));
    }
    found
}

/// Files that lead back to themselves, together with those on the way (Tarjan, 1972).
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    #[derive(Default)]
    struct Search<'g> {
        order: BTreeMap<&'g str, (usize, usize)>,
        open: Vec<&'g str>,
        found: Vec<Vec<String>>,
    }
    fn visit<'g>(graph: &'g Graph, at: &'g str, search: &mut Search<'g>) -> usize {
        let number = search.order.len();
        search.order.insert(at, (number, number));
        search.open.push(at);
        let mut low = number;
        for next in &graph[at] {
            low = low.min(match search.order.get(next.as_str()) {
                None => visit(graph, next, search),
                Some((number, _)) if search.open.contains(&next.as_str()) => *number,
                Some(_) => low,
            });
        }
        if low == number {
            let begin = search.open.iter().position(|open| *open == at).unwrap();
            let circle = search.open.split_off(begin);
            if circle.len() > 1 {
                search.found.push(circle.into_iter().map(str::to_owned).collect());
            }
        }
        low
    }
    let mut search = Search::default();
    for module in graph.keys() {
        if !search.order.contains_key(module.as_str()) {
            visit(graph, module, &mut search);
        }
    }
    for circle in &mut search.found {
        circle.sort();
    }
    search.found.sort();
    search.found
}

#[test]
fn imports_lead_downwards() {
    let found = upward(&graph());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_two_files_import_each_other() {
    let circles = circles(&graph());
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn no_test_imports_another_one() {
    let mut files_of = BTreeMap::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"), "", &mut files_of);
    let graph = graph_of(&files_of, true);
    assert!(graph["cmd::run"].contains("support::jobs"), "{:?}", graph["cmd::run"]);
    let found = between_tests(&graph);
    assert!(found.is_empty(), "what tests share belongs into tests/it/support: {found:#?}");
}

fn sources(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// Planted ones are found: by name, by a path in the code, and from a parent to its child.
#[test]
fn a_planted_circle_is_found() {
    let files = sources(&[
        ("error", "pub struct E;"),
        ("store", "pub mod s3; pub trait Store {} pub const ALL: &[u8] = &[s3::KIND];"),
        ("store::s3", "use super::Store; pub const KIND: u8 = 0;"),
        ("cmd", "use crate::{error::E, store}; #[cfg(test)] mod tests { use crate::cli::Words; }"),
        ("cli", "pub struct Words; fn run() { crate::cmd::run() }"),
        ("domain", "fn open() -> crate::store::s3::Kind { made() }"),
    ]);
    let graph = graph_of(&files, false);
    assert_eq!(circles(&graph), [["store", "store::s3"]]);
    assert_eq!(upward(&graph), ["domain imports store::s3"]);
    assert_eq!(graph["cmd"], ["error", "store"].map(str::to_owned).into());
}

/// One is found wherever it stands, and what a test may import is not.
#[test]
fn a_planted_import_of_a_test_is_found() {
    let files = sources(&[
        ("support", "pub(crate) mod bed; pub(crate) mod jobs;"),
        ("support::bed", "pub(crate) fn bed() -> u8 { 0 }"),
        ("support::jobs", "use super::bed::bed; use crate::cmd::run::with;"),
        ("cmd", "mod run; mod tick; fn all() { run::with() }"),
        ("cmd::run", "use crate::support::{bed::bed, jobs}; use super::all; fn with() {}"),
        ("cmd::tick", "use super::run::with;"),
        ("store", "mod s3;"),
        (
            "store::s3",
            "fn test() { let all = 1; assert_eq!(all, crate::cmd::run::with(), \"{all}\"); }",
        ),
        ("store::local", "fn test() { assert!(crate::support::bed::bed() == 0 && all()); }"),
    ]);
    let found = between_tests(&graph_of(&files, true));
    assert_eq!(
        found,
        [
            "cmd::tick imports cmd::run",
            "store::s3 imports cmd::run",
            "support::jobs imports cmd::run"
        ]
    );
}
