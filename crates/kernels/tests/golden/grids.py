"""Prints src/blocks/grids.rs: the grids of IQ1 to IQ3 as the gguf package has them.

    pip install numpy gguf && python grids.py | rustfmt --config-path ../.. > ../../src/blocks/grids.rs
"""

from gguf import quants

print("""\
//! The grids of IQ1, IQ2 and IQ3: the vectors of magnitudes that their indices stand for. Printed by `tests/golden/grids.py`.
//!
//! An entry is a vector of codes, the first in the lowest bits: eight of 2 bits, or in IQ3 four of 4 bits. What a code is
//! worth differs between formats.
""")
for name in ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]:
    packed = bytes.fromhex(getattr(quants, name).grid_hex.decode())
    entries = [int.from_bytes(packed[i : i + 2], "little") for i in range(0, len(packed), 2)]
    # IQ1_M shares the grid of IQ1_S.
    print(f"pub(super) static {name.replace('IQ1_S', 'IQ1')}: [u16; {len(entries)}] = [")
    print("".join(f"0x{entry:04x}," for entry in entries))
    print("];")
