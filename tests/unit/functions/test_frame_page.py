# SPDX-License-Identifier: Apache-2.0
"""The page of the frame's fields says of each what its docstring says, and whether it can be set.

To write the tables anew: python -m tests.unit.functions.test_frame_page
"""

import ast
import re
from pathlib import Path

import byway.nf
from byway import nf
from byway.functions.fields import FIELDS, METHODS, PAYLOAD, VIEWS

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/reference/nf-frame.md"
SOURCES = Path(byway.nf.__file__).parent
# The page's parts, by what their names begin with; the first that fits.
PARTS = {
    "Ethernet": ("eth_", "has_vlan", "vlan_"), "ARP": ("is_arp", "arp_"),
    "TCP and UDP": ("is_tcp", "is_udp", "l4_src", "l4_dst", "tcp_", "udp_"),
    "ICMP": ("is_icmp", "icmp_"), "VXLAN": ("is_vxlan", "vxlan_"),
    "Where headers begin": ("l3_offset", "l4_offset", "payload_offset"),
    "IP": ("ip_", "is_ip", "ipv4_", "ipv6_", "is_fragment", "is_first"),
    "The frame itself": ("",),
}


def docstrings(file: str, owner: str) -> dict[str, str]:
    """What a class says of its attributes, properties and methods."""
    [found] = [node for node in ast.parse((SOURCES / file).read_text()).body
               if isinstance(node, ast.ClassDef) and node.name == owner]
    said: dict[str, str] = {}
    for node, following in zip(found.body, [*found.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(following, ast.Expr):
            said[ast.unparse(node.targets[0])] = ast.literal_eval(following.value)
        elif isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
            said.setdefault(node.name, text)
    return {name: re.sub(r"``(.*?)``", r"`\1`", " ".join(text.split()))
            for name, text in said.items()}


def part_of(name: str) -> str:
    """The heading that a field stands under."""
    return next(part for part, begins in PARTS.items() if name.startswith(begins))


def rows() -> dict[str, list[str]]:
    """The lines of each table."""
    fields = docstrings("headers.py", "Headers") | docstrings("frame.py", "Frame")
    payload = docstrings("payload.py", "Payload")
    tables: dict[str, list[str]] = {part: [] for part in (*PARTS, "Methods", "Payload")}
    for name, field in FIELDS.items():
        can = "yes" if field.set else ""
        tables[part_of(name)].append(f"| `{name}` | {fields[name]} | {can} |".replace("  |", " |"))
    tables["The frame itself"] += [f"| `{name}` | {fields[name]} | |" for name in ("flow", *VIEWS)]
    for name, method in METHODS.items():
        given = ", ".join(f"{each}={method.defaults[each]}" if each in method.defaults else each
                          for each in method.arguments)
        tables["Methods"].append(f"| `{name}({given})` | {fields[name]} |")
    tables["Methods"].append(f"| `send_copy(port)` | {fields['send_copy']} |")
    for name, method in PAYLOAD.items():
        call = name if name == "length" else f"{name}({', '.join(method.arguments)})"
        tables["Payload"].append(f"| `{call}` | {payload[name]} |")
    return tables


def test_the_page_says_what_the_docstrings_say() -> None:
    text = PAGE.read_text()
    for part, lines in rows().items():
        section = text.split(f"\n## {part}\n")[1].split("\n## ")[0]
        assert [line for line in section.splitlines() if line.startswith("| `")] == lines, part


def test_what_can_be_set_in_plain_python_is_what_kernels_set() -> None:
    frame = nf.Frame(bytes(60))
    for name, field in FIELDS.items():
        try:
            setattr(frame, name, 0)
        except AttributeError:
            assert field.set is None, name
        else:
            assert field.set is not None, name


if __name__ == "__main__":
    for title, lines in rows().items():
        print(f"\n## {title}\n", *lines, sep="\n")
