#pragma once

/// What Python's pathlib makes of the same paths and of a tree that is built the same way: a program for
/// python3 (3.11 or later) that prints one line for each question, as path_pathlib_test.cpp does.
/// Where versions of Python differ in what they answer, it does not ask.
///
///     python3 oracle.py INPUTS TREE
///
/// INPUTS has a line "P text" for each path and "Q text" for each second operand, percent-encoded.
inline constexpr char pathlib_oracle[] = R"py(
import os, sys
from pathlib import Path, PurePosixPath
from urllib.parse import quote_from_bytes, unquote_to_bytes

def shown(value):
    if isinstance(value, bool): return '01'[value]
    if isinstance(value, int): return str(value)
    if isinstance(value, (list, tuple)) or type(value).__name__ == '_PathParents':
        return '[' + ','.join(shown(v) for v in value) + ']'
    return quote_from_bytes(os.fsencode(str(value)) if not isinstance(value, bytes) else value)

def say(label, ask):
    try: value = shown(ask())
    except NotImplementedError: value = '!ValueError'
    except ValueError: value = '!ValueError'
    except OSError as e: value = '!OSError %d' % e.errno
    except Exception as e: value = '!' + type(e).__name__
    print(label, '=', value)

lines = open(sys.argv[1], 'rb').read().splitlines()
paths, others = [[os.fsdecode(unquote_to_bytes(l[2:])) for l in lines if l[:1] == k] for k in (b'P', b'Q')]

for text in paths:
    p = PurePosixPath(text)
    l = shown(text)
    say(f'{l} str', lambda: str(p))
    for name in 'as_posix', 'is_absolute', 'as_uri', 'is_reserved':
        say(f'{l} {name}', getattr(p, name))
    for name in 'parts', 'drive', 'root', 'anchor', 'parent', 'parents', 'name', 'suffix', 'suffixes', 'stem':
        say(f'{l} {name}', lambda: getattr(p, name))
    for other in others:
        q = PurePosixPath(other)
        l = shown(text) + ' ' + shown(other)
        say(f'{l} init', lambda: PurePosixPath(text, other))
        say(f'{l} joinpath', lambda: p.joinpath(other, 'x'))
        say(f'{l} div', lambda: p / other)
        say(f'{l} rdiv', lambda: other / p)
        say(f'{l} is_relative_to', lambda: p.is_relative_to(q))
        say(f'{l} relative_to', lambda: p.relative_to(q))
        say(f'{l} match', lambda: p.match(other))
        say(f'{l} equal', lambda: p == q)
        say(f'{l} hash', lambda: p != q or hash(p) == hash(q))
        if p.root == q.root:
            say(f'{l} order', lambda: [p < q, p <= q, p > q, p >= q])
        say(f'{l} with_name', lambda: p.with_name(other))
        if other:
            say(f'{l} with_stem', lambda: p.with_stem(other))
        if other or text != '..a':
            say(f'{l} with_suffix', lambda: p.with_suffix(other))

os.chdir(sys.argv[2])
for text in sorted(os.fsdecode(n) for n in [b'.', b'file', b'dir', b'dir/sub', b'link', b'dangling', b'loop', b'dirlink',
                                            b'fifo', b'missing', b'file/below', b'dangling/below', b'loop/x',
                                            b'dir/../file', b'dirlink/../file', b'bad\xff', b'new\nline',
                                            b'/dev/null', b'/', b'nul\0nul', b'dirlink/sub/deep', b'chain']):
    p = Path(text)
    l = 'fs ' + shown(text)
    for name in ('exists', 'is_file', 'is_dir', 'is_symlink', 'is_fifo', 'is_socket', 'is_block_device',
                 'is_char_device', 'readlink'):
        say(f'{l} {name}', getattr(p, name))
    say(f'{l} is_mount', lambda: os.path.ismount(p))
    say(f'{l} stat', lambda: [p.stat().st_mode, p.stat().st_nlink])
    say(f'{l} stat nofollow', lambda: p.stat(follow_symlinks=False).st_mode)
    say(f'{l} lstat', lambda: [p.lstat().st_mode, p.lstat().st_ino > 0])
    say(f'{l} owner', p.owner)
    say(f'{l} group', p.group)
    say(f'{l} samefile', lambda: p.samefile('file'))
    say(f'{l} samefile other', lambda: Path('dirlink').samefile(p))
    say(f'{l} absolute', lambda: p.absolute() == Path.cwd() / p)
    def resolved(strict):
        r = os.path.realpath(p, strict=strict)
        base = os.getcwd()
        return r[len(base):] if r.startswith(base) else r
    say(f'{l} resolve', lambda: resolved(False))
    say(f'{l} resolve_strict', lambda: resolved(True))
    say(f'{l} iterdir', lambda: sorted(os.fsencode(str(e)) for e in p.iterdir()) if text not in ('/',) else '')

def walk(top, down):
    try:
        with os.scandir(top) as it: entries = list(it)
    except OSError: return
    dirs = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    files = sorted(e.name for e in entries if not e.is_dir(follow_symlinks=False))
    if down: yield top, dirs, files
    for d in dirs: yield from walk(top / d, down)
    if not down: yield top, dirs, files

for down in True, False:
    say(f'walk {int(down)}', lambda: sorted([os.fsencode(str(d)), ds, fs] for d, ds, fs in walk(Path('.'), down)))

for pattern in ('*', '*/*', '**/*', '**/', 'dir/*', 'dir*/s*', '*/sub/deep', '**/deep', '**/sub/*', '../*/file', 'file',
                'missing', 'dangling', 'dir/', '*/', 'f?l*', '[a-f]i[!x]e', '**/*.txt', '**/d*/**/*', 'dir/**/deep',
                '', '/', '/abs', '.', 'dirlink/*', 'dir/../*', '**/../file', 'loop/*', 'file/*', '*\xe4*', 'new*'):
    if pattern not in ('.', 'dangling'):
        say(f'glob {shown(pattern)}', lambda: sorted(set(os.fsencode(str(e)) for e in Path('.').glob(pattern))))
    say(f'rglob {shown(pattern)}', lambda: sorted(os.fsencode(str(e)) for e in Path('dir').rglob(pattern))) if pattern else None

def state():
    out = []
    for d, ds, fs in walk(Path('.'), True):
        for n in ds + fs:
            p = d / n
            s = p.lstat()
            out.append([os.fsencode(str(p)), s.st_mode, s.st_nlink if not p.is_dir() else 0,
                        os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else ''])
    return sorted(out)

os.umask(0o022)
def do(label, act):
    say('do ' + label, act)
    say('then ' + label, state)
P = Path
do('mkdir', lambda: P('new').mkdir())
os.symlink('nowhere', 'new/dangling')
os.symlink('nothing', 'new/dangling2')
do('mkdir again', lambda: P('new').mkdir())
do('mkdir exist_ok', lambda: P('new').mkdir(exist_ok=True))
do('mkdir over file', lambda: P('file').mkdir(exist_ok=True))
do('mkdir no parents', lambda: P('new/a/b').mkdir())
do('mkdir parents', lambda: P('new/a/b').mkdir(mode=0o700, parents=True))
do('touch', lambda: P('new/t').touch())
do('touch again', lambda: P('new/t').touch(exist_ok=False))
do('touch mode', lambda: P('new/t2').touch(mode=0o600))
do('touch dangling', lambda: P('new/dangling').touch())
do('touch loop', lambda: P('loop').touch())
do('touch dir', lambda: P('new').touch())
do('touch missing', lambda: P('nowhere/t').touch())
do('chmod', lambda: P('new/t').chmod(0o640))
do('chmod missing', lambda: P('new/none').chmod(0o640))
do('chmod loop', lambda: P('loop').chmod(0o640))
do('lchmod', lambda: P('new/t').lchmod(0o604))
do('lchmod missing', lambda: P('new/none').lchmod(0o604))
do('symlink', lambda: P('new/s').symlink_to('t'))
do('symlink again', lambda: P('new/s').symlink_to('t'))
do('symlink dir', lambda: P('new/sd').symlink_to('a', target_is_directory=True))
do('mkdir over links', lambda: P('new/sd').mkdir(exist_ok=True))
do('mkdir over dangling', lambda: P('dangling').mkdir(exist_ok=True))
do('hardlink', lambda: P('new/h').hardlink_to('new/t'))
do('hardlink missing', lambda: P('new/h2').hardlink_to('new/none'))
do('hardlink dir', lambda: P('new/h3').hardlink_to('new/a'))
do('write_bytes', lambda: P('new/t').write_bytes(b'a\0b\xff'))
do('read_bytes', lambda: P('new/h').read_bytes())
do('read_bytes missing', lambda: P('new/none').read_bytes())
do('read_bytes dir', lambda: P('new').read_bytes())
do('read_text bad', lambda: P('new/h').read_text(encoding='utf-8'))
do('read_text replace', lambda: P('new/h').read_text(encoding='utf-8', errors='replace').encode())
do('read_text ignore', lambda: P('new/h').read_text(encoding='utf-8', errors='ignore').encode())
do('read_text latin-1', lambda: P('new/h').read_text(encoding='latin-1').encode())
do('write_text', lambda: P('new/u').write_text('z\u00e4\u20ac\U0001f600\n', encoding='utf-8'))
do('write_text newline', lambda: P('new/v').write_text('a\nb\n', encoding='utf-8', newline='\r\n'))
do('read_text newline', lambda: P('new/v').read_text(encoding='utf-8').encode())
do('write_text utf-16', lambda: P('new/w').write_text('a\u00e4\n', encoding='utf-16'))
do('read_text utf-16', lambda: P('new/w').read_text(encoding='utf-16').encode())
do('write_text sig', lambda: P('new/sig').write_text('a\u00e4\n', encoding='utf-8-sig'))
do('read_bytes sig', lambda: P('new/sig').read_bytes())
do('read_text sig', lambda: P('new/sig').read_text(encoding='utf-8-sig').encode())
do('write_text ascii', lambda: P('new/x').write_text('\u00e4', encoding='ascii', errors='replace'))
def opened(p, mode, use):
    with p.open(mode) as f: return use(f)
do('open append', lambda: opened(P('new/o'), 'ab', lambda f: f.write(b'one')))
do('open read', lambda: opened(P('new/o'), 'rb', lambda f: f.read()))
do('open new', lambda: opened(P('new/o'), 'x', lambda f: f.write('two')))
do('open dir', lambda: opened(P('new'), 'r', lambda f: f.read()))
do('open loop', lambda: opened(P('loop'), 'w', lambda f: f.write('x')))
do('open dangling', lambda: opened(P('new/dangling2'), 'r', lambda f: f.read()))
do('open no mode', lambda: opened(P('new/o'), 'q', lambda f: f.read()))
do('rename', lambda: P('new/u').rename('new/renamed'))
do('rename missing', lambda: P('new/u').rename('new/renamed'))
do('rename over', lambda: P('new/v').rename('new/renamed'))
do('rename into dir', lambda: P('new/renamed').rename('new/a'))
do('rename dir over file', lambda: P('new/a').rename('new/renamed'))
do('rename below itself', lambda: P('new/a').rename('new/a/b/c'))
do('replace missing', lambda: P('new/none').replace('new/w'))
do('replace dir', lambda: P('new/a').replace('new/a2'))
do('replace back', lambda: P('new/a2').replace('new/a'))
do('replace', lambda: P('new/renamed').replace('new/w'))
do('unlink', lambda: P('new/w').unlink())
do('unlink missing', lambda: P('new/w').unlink())
do('unlink missing_ok', lambda: P('new/w').unlink(missing_ok=True))
do('unlink link', lambda: P('new/sd').unlink())
do('unlink below file', lambda: P('file/x').unlink(missing_ok=True))
do('unlink dir', lambda: P('new/a').unlink())
do('rmdir full', lambda: P('new').rmdir())
do('rmdir', lambda: P('new/a/b').rmdir())
do('rmdir missing', lambda: P('new/none').rmdir())
do('rmdir link', lambda: P('dirlink').rmdir())
do('rmdir file', lambda: P('new/t').rmdir())
say('expanduser alone', lambda: P('~').expanduser())
say('cwd', lambda: P.cwd() == P('x/..').absolute().parent.parent)
say('expanduser', lambda: P('~/x').expanduser())
say('expanduser root', lambda: P('~root/x').expanduser())
say('expanduser nobody there', lambda: P('~no-such-user/x').expanduser())
say('expanduser inside', lambda: P('x/~').expanduser())
say('home', P.home)
)py";
