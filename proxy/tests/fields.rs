//! The table of what each field of a service does is whole, and every test that it names exists.
//! Reads files only; builds nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The structs that a service's spec is made of. A new one has to be added here and in the table.
const STRUCTS: [&str; 39] = [
    "ServiceSpec",
    "ServiceMode",
    "ReplicatedService",
    "GlobalService",
    "ReplicatedJob",
    "GlobalJob",
    "UpdateConfig",
    "EndpointSpec",
    "PortConfig",
    "TaskSpec",
    "PluginSpec",
    "PluginPrivilege",
    "NetworkAttachmentSpec",
    "NetworkAttachmentConfig",
    "ResourceRequirements",
    "Limit",
    "Resources",
    "GenericResource",
    "NamedGenericResource",
    "DiscreteGenericResource",
    "Placement",
    "PlacementPreference",
    "SpreadOver",
    "Platform",
    "RestartPolicy",
    "Driver",
    "ContainerSpec",
    "Privileges",
    "CredentialSpec",
    "SeLinuxContext",
    "SeccompOpts",
    "AppArmorOpts",
    "Mount",
    "BindOptions",
    "VolumeOptions",
    "TmpfsOptions",
    "HealthConfig",
    "DnsConfig",
    "Ulimit",
];

/// Structs of references, which end the table.
const REFERENCES: [&str; 3] = ["SecretReference", "ConfigReference", "FileTarget"];

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap().to_owned()
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, into);
        } else if name.ends_with(".rs") {
            into.push(path);
        }
    }
}

fn read(paths: &[PathBuf]) -> String {
    let texts = paths
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap());
    texts.collect::<Vec<_>>().join("\n")
}

/// Fields on the wire by struct.
fn wire_fields() -> BTreeMap<String, BTreeSet<String>> {
    let mut paths = Vec::new();
    rust_files(&root().join("swarm/api/src"), &mut paths);
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut current = None;
    for line in read(&paths).lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("pub struct ") {
            current = rest.split([' ', '{', '(', ';']).next().map(str::to_owned);
            found.entry(current.clone().unwrap()).or_default();
        } else if line == "}" {
            current = None;
        } else if let (Some(name), Some((_, rest))) = (&current, line.split_once(" = \""))
            && !line.starts_with('#')
            && let Some((field, _)) = rest.split_once('"')
        {
            found.get_mut(name).unwrap().insert(field.to_owned());
        }
    }
    found
}

/// Fields in the table by the struct's section, and the tests named.
fn table() -> (BTreeMap<String, BTreeSet<String>>, BTreeSet<String>) {
    let path = root().join("swarm/core/src/container/FIELDS.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (mut fields, mut tests) = (BTreeMap::<_, BTreeSet<String>>::new(), BTreeSet::new());
    let mut sections = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("##") {
            let title = title.trim_start_matches('#').trim();
            sections = title.split(", ").map(str::to_owned).collect::<Vec<_>>();
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [names, _, proofs] = cells.as_slice() else {
            continue;
        };
        if *names == "Field" || *names == "Label" {
            continue;
        }
        for section in &sections {
            let section = section.to_lowercase();
            let of = fields.entry(section).or_default();
            of.extend(names.split(", ").map(str::to_owned));
        }
        tests.extend(proofs.split(", ").map(|proof| match proof {
            "Max" => "every_field_makes_the_container_that_the_original_makes".to_owned(),
            "Core" => "every_field_reaches_the_engine".to_owned(),
            test => test.trim_matches('`').to_owned(),
        }));
    }
    (fields, tests)
}

#[test]
fn tidy_every_field_of_a_service_is_in_the_table() {
    let (wire, (table, _)) = (wire_fields(), table());
    let mut offences = Vec::new();
    let mut covered: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in STRUCTS.iter().chain(&REFERENCES) {
        let Some(fields) = wire.get(*name) else {
            offences.push(format!("{name} is not in swarm/api"));
            continue;
        };
        let section = name.to_lowercase();
        let Some((section, listed)) = table.get_key_value(&section) else {
            offences.push(format!("{name} has no section in FIELDS.md"));
            continue;
        };
        let all = covered.entry(section).or_default();
        all.extend(fields.iter().map(String::as_str));
        offences.extend(
            fields
                .difference(listed)
                .map(|field| format!("{name}.{field} has no row in FIELDS.md")),
        );
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
    // A field that is gone must not stay in the table.
    let known: BTreeSet<&str> = wire.values().flatten().map(String::as_str).collect();
    for (section, listed) in &table {
        let stale = listed
            .iter()
            .filter(|field| !known.contains(field.as_str()) && !field.starts_with("skep."));
        offences.extend(stale.map(|field| format!("{section}.{field} is no field")));
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn tidy_every_test_that_the_table_names_exists() {
    let mut paths = Vec::new();
    rust_files(&root(), &mut paths);
    let text = read(&paths);
    let (_, tests) = table();
    let missing: Vec<&String> = tests
        .iter()
        .filter(|test| !text.contains(&format!("fn {test}(")))
        .collect();
    assert!(missing.is_empty(), "FIELDS.md names {missing:?}");
}
