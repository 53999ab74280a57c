//! The programs and the maps that they name, in a file as compilers write it, which is what loaders
//! read. Pure.

use std::collections::BTreeMap;

use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope, elf,
};

use super::program;
use super::tables::MAPS;

/// What the kernel is told of who may use the programs.
const LICENSE: &[u8] = b"Apache-2.0\0";

/// The file.
///
/// # Errors
/// When it cannot be written, which the same bytes never are.
pub(super) fn file() -> Result<Vec<u8>, object::write::Error> {
    let endianness = match cfg!(target_endian = "big") {
        true => Endianness::Big,
        false => Endianness::Little,
    };
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, endianness);
    let maps = section(&mut file, "maps", SectionKind::Data);
    let mut known = BTreeMap::new();
    for map in MAPS {
        let at = (map.name, maps, SymbolKind::Data);
        known.insert(map.name, put(&mut file, at, &map.described()));
    }
    let license = section(&mut file, "license", SectionKind::Data);
    file.append_section_data(license, LICENSE, 1);
    for (hook, code) in program::all() {
        let (bytes, mentions) = code.finish();
        let place = section(&mut file, &format!("cgroup/{hook}"), SectionKind::Text);
        put(&mut file, (hook, place, SymbolKind::Text), &bytes);
        for (offset, map) in mentions {
            let Some(symbol) = known.get(map) else {
                continue;
            };
            let relocation = Relocation {
                offset: u64::try_from(offset).unwrap_or(u64::MAX),
                symbol: *symbol,
                addend: 0,
                flags: RelocationFlags::Elf {
                    r_type: elf::R_BPF_64_64,
                },
            };
            file.add_relocation(place, relocation)?;
        }
    }
    file.write()
}

fn section(file: &mut Object<'_>, name: &str, kind: SectionKind) -> SectionId {
    file.add_section(Vec::new(), name.as_bytes().to_vec(), kind)
}

/// Adds something that has a name.
fn put(
    file: &mut Object<'_>,
    (name, section, kind): (&str, SectionId, SymbolKind),
    bytes: &[u8],
) -> SymbolId {
    let value = file.append_section_data(section, bytes, 8);
    file.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value,
        size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        kind,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    })
}
