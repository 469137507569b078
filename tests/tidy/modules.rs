//! The modules of a crate, what they use of each other, and the circles among them.
//!
//! A folder and the files in it are one module to the outside. What lies in one folder is seen as siblings: the file of the
//! folder itself may use them and they it, while among them imports go one way only. What a sibling hands on through its
//! parent (`pub use`) is looked up, so that an import of `super::Book` counts as one of `super::book`.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{named, shipped, test_modules};

/// A module by its path from the crate's root.
pub type Path = Vec<String>;

/// The code of a crate.
#[derive(Debug, Default)]
pub struct Crate {
    files: BTreeMap<Path, File>,
}

#[derive(Debug)]
struct File {
    name: String,
    uses: Vec<(Path, usize)>,
    /// The names that it takes from elsewhere, and from where: what others import of it may be these.
    names: BTreeMap<String, Path>,
    is_test: bool,
}

/// One module's use of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// Who uses it.
    pub from: Path,
    /// What is used.
    pub to: Path,
    /// In which file and line.
    pub place: String,
}

impl Crate {
    /// Reads the files of a crate, each with its path below the crate's `src`, such as `peers/dial.rs`.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Crate {
        let mut read = Crate::default();
        let mut tests: BTreeSet<Path> = BTreeSet::new();
        for (name, text) in files {
            let path = module_of(name);
            tests.extend(test_modules(text).into_iter().map(|module| [&path[..], &[module]].concat()));
            let mut file = File { name: name.to_owned(), uses: Vec::new(), names: BTreeMap::new(), is_test: false };
            for named in named(&shipped(text)) {
                let Some(to) = absolute(&path, &named.segments) else { continue };
                if let Some(name) = named.used_as {
                    file.names.insert(name, to.clone());
                }
                file.uses.push((to, named.line));
            }
            read.files.insert(path, file);
        }
        // `#[path = "x_tests.rs"]` names a file beside the one that declares it.
        let beside = |path: &Path| {
            tests.iter().any(|test| {
                let (name, parents) = test.split_last().expect("a module has a name");
                let above = parents.split_last().map_or(parents, |(_, above)| above);
                path.starts_with(test) || path[..] == [above, std::slice::from_ref(name)].concat()[..]
            })
        };
        let found: Vec<Path> = read.files.keys().filter(|path| beside(path)).cloned().collect();
        for path in found {
            if let Some(file) = read.files.get_mut(&path) {
                // A file of one name with a test module above it is shipped unless it looks like tests itself.
                file.is_test = tests.iter().any(|test| path.starts_with(test)) || file.name.contains("tests");
            }
        }
        read
    }

    /// Every use of one module by another, both seen from the folder in which they are siblings; tests are left out.
    pub fn uses(&self) -> Vec<Use> {
        let mut uses = Vec::new();
        for (from, file) in self.files.iter().filter(|(_, file)| !file.is_test) {
            for (to, line) in &file.uses {
                let Some(to) = self.resolve(to, 0) else { continue };
                let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
                // One of them is the other's folder: together they are one module.
                if common == from.len() || common == to.len() {
                    continue;
                }
                uses.push(Use {
                    from: from[..=common].to_vec(),
                    to: to[..=common].to_vec(),
                    place: format!("{}:{line}", file.name),
                });
            }
        }
        uses
    }

    /// The modules right below the root.
    pub fn top_level(&self) -> BTreeSet<String> {
        self.files.iter().filter(|(_, file)| !file.is_test).filter_map(|(path, _)| path.first().cloned()).collect()
    }

    /// Which module a path leads into: that of the longest start that is one, unless what follows is a name that module has
    /// from elsewhere.
    fn resolve(&self, path: &[String], depth: usize) -> Option<Path> {
        const HANDED_ON_MAX: usize = 8;
        let module = (0..=path.len()).rev().map(|end| &path[..end]).find(|start| self.files.contains_key(*start))?;
        let handed_on = path.get(module.len()).and_then(|name| self.files[module].names.get(name));
        match handed_on {
            Some(next) if depth < HANDED_ON_MAX && next != path => {
                let rest = &path[module.len() + 1..];
                self.resolve(&[&next[..], rest].concat(), depth + 1).or_else(|| Some(module.to_vec()))
            }
            _ => Some(module.to_vec()),
        }
    }

    /// The circles among siblings, each as the uses that make it: the first one of each module of each other.
    pub fn circles(&self) -> Vec<Vec<Use>> {
        let uses = self.uses();
        let mut next: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
        for it in &uses {
            next.entry(&it.from).or_default().insert(&it.to);
        }
        let reach = |from: &Path| {
            let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
            while let Some(at) = left.pop() {
                left.extend(next.get(at).into_iter().flatten().filter(|to| seen.insert(**to)));
            }
            seen.into_iter().cloned().collect::<BTreeSet<Path>>()
        };
        let reached: BTreeMap<Path, BTreeSet<Path>> = next.keys().map(|from| ((*from).clone(), reach(from))).collect();
        let meets = |one: &Path, other: &Path| reached.get(one).is_some_and(|all| all.contains(other));
        let mut told: BTreeSet<Path> = BTreeSet::new();
        let mut circles = Vec::new();
        for from in reached.keys().filter(|from| meets(from, from)) {
            if !told.insert(from.clone()) {
                continue;
            }
            let members: BTreeSet<Path> = reached
                .keys()
                .filter(|other| *other == from || (meets(from, other) && meets(other, from)))
                .cloned()
                .collect();
            told.extend(members.iter().cloned());
            let mut pairs = BTreeSet::new();
            let inside = uses.iter().filter(|it| members.contains(&it.from) && members.contains(&it.to));
            circles.push(inside.filter(|it| pairs.insert((&it.from, &it.to))).cloned().collect());
        }
        circles
    }
}

/// The path of the module in a file below `src`.
pub fn module_of(file: &str) -> Path {
    let mut path: Path = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let is_root = path.len() == 1 && matches!(path[0].as_str(), "lib" | "main");
    if is_root || path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    path
}

/// A path as seen from the crate's root. Nothing for what another crate has.
fn absolute(module: &[String], segments: &[String]) -> Option<Path> {
    let (first, rest) = segments.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => {
            let up = segments.iter().take_while(|segment| *segment == "super").count();
            Some([module.get(..module.len().checked_sub(up)?)?, &segments[up..]].concat())
        }
        // A `use` without either names a child of this module, or another crate.
        _ => Some([module, segments].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let read = Crate::read(files.iter().copied());
        let shown = |it: &Use| format!("{} -> {} ({})", it.from.join("::"), it.to.join("::"), it.place);
        read.circles().iter().map(|circle| circle.iter().map(shown).collect::<Vec<_>>().join("; ")).collect()
    }

    #[test]
    fn a_circle_of_modules_is_found_whatever_form_its_imports_have() {
        let root = ("lib.rs", "mod a; mod b; mod c;");
        assert!(circles(&[root, ("a.rs", "use crate::b::X;"), ("b.rs", "use crate::c;"), ("c.rs", "")]).is_empty());
        for back in [
            "use crate::a;",
            "use super::a::Y;",
            "use crate::{z, a::Y};",
            "fn f(x: u8) -> crate::z::Z { crate::a::g(x) }",
            "#[cfg(test)]\nmod tests { fn t() {} }\nuse crate::a::Y;",
        ] {
            let found = circles(&[root, ("a.rs", "use crate::b::X;"), ("b.rs", "use crate::c;"), ("c.rs", back)]);
            assert_eq!(found.len(), 1, "{back}");
            assert!(found[0].contains("a -> b (a.rs:1)") && found[0].contains("c -> a (c.rs:"), "{found:?}");
        }
    }

    #[test]
    fn a_chain_of_supers_is_followed() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod deep;"),
            ("a/deep.rs", "use super::super::b::X;"),
            ("b.rs", "use crate::a::Y;"),
        ];
        assert_eq!(circles(&files), ["a -> b (a/deep.rs:1); b -> a (b.rs:1)"]);
    }

    #[test]
    fn files_of_one_folder_are_siblings_and_the_folder_is_not_one_of_them() {
        let folder = ("a/mod.rs", "mod one; mod two; pub use one::One; use two::two;");
        let fine =
            [("lib.rs", "mod a;"), folder, ("a/one.rs", "use super::Other;"), ("a/two.rs", "use super::one::X;")];
        assert!(circles(&fine).is_empty());
        // Through the parent's `pub use`.
        let circle = [("lib.rs", "mod a;"), folder, ("a/one.rs", "use super::two;"), ("a/two.rs", "use super::One;")];
        assert_eq!(circles(&circle), ["a::one -> a::two (a/one.rs:1); a::two -> a::one (a/two.rs:1)"]);
    }

    #[test]
    fn tests_may_reach_anywhere() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::X;"),
            ("b.rs", "#[cfg(test)]\nmod tests { use crate::a; }\n#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod more;"),
            ("b_tests.rs", "use crate::a;"),
        ];
        assert!(circles(&files).is_empty());
    }
}
