"""Any folder of one's own: real/ and fake/<method>/, or a flat folder of real videos."""

from __future__ import annotations

from pathlib import Path

from preprocessing.errors import PreprocessingError
from preprocessing.layouts.base import NO_COMPRESSION, Doubt, Layout, Note, Video, find_videos, ignore, instead, need_folder


class Folder(Layout):
    """Own videos, in two shapes.

    With real/ or fake/: videos below real/ are real, videos below fake/<method>/ are forged by <method>, videos directly in fake/
    have the method "fake". Flat, with neither: every video directly in the folder counts as real, and a note says so; a folder that
    keeps its videos in other subfolders is refused, because labels would be guessed. All splits are "none". A video is named by its
    path below real/ or below its method, so equal names in two subfolders stay two videos.
    """

    name = "folder"
    title = "folder"
    url = ""
    terms = "your own videos"
    tree = """\
real/**/<name>.mp4  fake/<method>/**/<name>.mp4     or: <name>.mp4 ... directly in the folder, all real
(.avi .m4v .mkv .mov .mp4 .mpeg .mpg .webm .wmv)"""
    counts = "what you have"
    splits = "none: all videos have the split 'none', so they are for testing; training on them warns"
    named_by_stem = False
    people_shared = True

    def matches(self, root: Path) -> bool:
        """True: the layout of last resort."""
        return True

    def videos(self, root: Path, *, dataset: str | None = None, compression: str = "c23", note: Note = ignore) -> list[Video]:
        """See `Layout.videos`; `compression` has no meaning here."""
        need_folder(root)
        name = dataset or root.resolve().name or "folder"
        if (root / "real").is_dir() or (root / "fake").is_dir():
            found = [_video(name, "real", root / "real", p) for p in find_videos(root / "real")]
            for path in find_videos(root / "fake"):
                below = path.relative_to(root / "fake").parts
                method = below[0] if len(below) > 1 else "fake"
                if method.casefold() == "real":
                    raise PreprocessingError(f"{root / 'fake' / method} calls a forgery '{method}'; name the folder by the forgery")
                found.append(_video(name, method, root / "fake" / method if len(below) > 1 else root / "fake", path))
            where = "real/ and fake/<method>/"
            others = [p for p in find_videos(root) if p.relative_to(root).parts[0] not in ("real", "fake")]
            if others:
                note(
                    Doubt(
                        f"{len(others)} videos of {root} are neither in real/ nor in fake/ and are left out, e.g. {others[0].name}"
                    )
                )
        else:
            below_root = find_videos(root)
            deeper = [p for p in below_root if p.parent != root]
            case = next((p.name for p in root.iterdir() if p.is_dir() and p.name.lower() in ("real", "fake")), None)
            if case is not None:
                raise PreprocessingError(f"{root} has the folder '{case}', which must be called '{case.lower()}'; rename it")
            if deeper:
                where = deeper[0].parent.relative_to(root).as_posix()
                raise PreprocessingError(
                    f"{root} keeps videos in '{where}/', neither real nor fake; move them into real/ and fake/<method>/ or"
                    " point at a folder whose videos are all real"
                )
            if below_root and "fake" in (place := root.resolve()).parts[-2:]:
                above = place.parent if place.name == "fake" else place.parent.parent
                raise PreprocessingError(f"the videos in {root} would count as real, though it is called 'fake'; give {above}")
            found = [_video(name, "real", root, p) for p in below_root]
            where = "it"
            if found:
                note(f"{root} has no real/ or fake/: all {len(found)} videos count as real (label 0, method 'real', split 'none')")
        if not found:
            raise PreprocessingError(f"no videos in {root}: looked for .mp4, .mkv, .avi and the like in {where}{instead(root)}")
        return found


def _video(dataset: str, method: str, base: Path, path: Path) -> Video:
    name = path.relative_to(base).with_suffix("").as_posix()
    return Video(dataset, method, int(method != "real"), "none", name, name, path, NO_COMPRESSION)
