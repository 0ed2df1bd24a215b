//! Denies a node the machine's disks where control groups have no file for that (version 2), by a small BPF program.

use std::{fs::File, path::Path};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupDevice},
};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

use crate::{
    cgroup::Hierarchies,
    error::{Error, Result},
};

/// The program's name in its object file.
const NAME: &str = "deny_disks";

/// Denies everything in `group` to read and write block devices, for as long as the returned value lives.
///
/// Programs of inner groups, such as those that container runtimes attach, can only deny more.
pub(super) fn deny(group: &Path) -> Result<Option<Ebpf>> {
    let Some(folder) = Hierarchies::detect()?.v2_folder(group) else { return Ok(None) };
    let opened = File::open(&folder).map_err(Error::file("open", &folder))?;
    let mut loaded = Ebpf::load(&object_file()?).map_err(|error| cannot("read", &error))?;
    let program = loaded.program_mut(NAME).ok_or_else(|| cannot("find", &"it is missing"))?;
    let program: &mut CgroupDevice = program.try_into().map_err(|error| cannot("use", &error))?;
    program.load().map_err(|error| cannot("load", &error))?;
    // A link by its nature goes with others; the kernel refuses it when asked for that.
    program.attach(opened, CgroupAttachMode::Single).map_err(|error| cannot("attach", &error))?;
    Ok(Some(loaded))
}

fn cannot(verb: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Machine {
        what: format!(
            "cannot {verb} the program that keeps nodes off the disks ({error}): use a kernel of 5.15 or newer with CONFIG_CGROUP_BPF"
        ),
    }
}

/// `return !(type == BLOCK && access & (READ | WRITE))`, as the kernel's machine code.
fn code() -> Vec<u8> {
    const LOAD: u8 = 0x61;
    const SET: u8 = 0xb7;
    const COPY: u8 = 0xbf;
    const AND: u8 = 0x57;
    const JUMP_UNLESS_EQUAL: u8 = 0x55;
    const JUMP_IF_EQUAL: u8 = 0x15;
    const EXIT: u8 = 0x95;
    // (operation, target and source register, instructions to skip, operand). The context's first word has the type of
    // the device in its lower half (1 is a block device) and the access in its upper one (1 make, 2 read, 4 write).
    let instructions: [(u8, u8, i16, i32); 9] = [
        (LOAD, 0x12, 0, 0),
        (SET, 0x00, 0, 1),
        (COPY, 0x23, 0, 0),
        (AND, 0x03, 0, 0xffff),
        (JUMP_UNLESS_EQUAL, 0x03, 3, 1),
        (AND, 0x02, 0, 0x6_0000),
        (JUMP_IF_EQUAL, 0x02, 1, 0),
        (SET, 0x00, 0, 0),
        (EXIT, 0x00, 0, 0),
    ];
    let mut code = Vec::new();
    for (operation, registers, skip, operand) in instructions {
        code.extend([operation, registers]);
        code.extend(skip.to_le_bytes());
        code.extend(operand.to_le_bytes());
    }
    code
}

fn object_file() -> Result<Vec<u8>> {
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = file.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    file.append_section_data(license, b"GPL\0", 1);
    // The section's name tells the kind of the program.
    let section = file.add_section(Vec::new(), b"cgroup/dev".to_vec(), SectionKind::Text);
    let code = code();
    file.append_section_data(section, &code, 8);
    file.add_symbol(Symbol {
        name: NAME.into(),
        value: 0,
        size: code.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    file.write().map_err(|error| cannot("pack", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_file_holds_nine_instructions() {
        assert_eq!(code().len(), 9 * 8);
        let file = object_file().unwrap();
        assert!(file.starts_with(b"\x7fELF"));
    }
}
