"""The built site as a zip that works where it is unpacked, without a server: offline.py SITE OUT.zip.

The same site gives the same bytes: names are sorted, and every file has one date.
"""

import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

FOLDER = "ntk-book"
LEFT_OUT = (".buildinfo", "objects.inv", "_static/locales/")
# A page opened as a file may not fetch another one, which is how search shows the words around a hit.
CHANGED = {"_static/documentation_options.js": ("SHOW_SEARCH_SUMMARY: true", "SHOW_SEARCH_SUMMARY: false")}


def pack(site: Path, out: Path) -> None:
    """Write every file of the site that a reader needs, in one folder."""
    with ZipFile(out, "w") as archive:
        names = (path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file())
        for name in sorted(name for name in names if not name.startswith(LEFT_OUT)):
            data = (site / name).read_bytes()
            if name in CHANGED:
                old, new = (text.encode() for text in CHANGED[name])
                assert old in data, f"{name} does not say {old}"
                data = data.replace(old, new)
            entry = ZipInfo(f"{FOLDER}/{name}")
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, ZIP_DEFLATED)


if __name__ == "__main__":
    site, out = map(Path, sys.argv[1:])
    pack(site, out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, open {FOLDER}/index.html")
