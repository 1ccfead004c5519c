# Make and enter the project's own environment in .venv; sourced by the scripts.
# Usage: . scripts/env.sh EXTRA, where EXTRA is one of pyproject's.
# uv is used where there is one, else venv and pip. The system's Python stays as it is.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra=$1
stamp=.venv/.installed-$extra
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  if command -v uv >/dev/null 2>&1; then
    [ -x .venv/bin/python ] || uv venv --quiet --python '>=3.11' .venv
    uv pip install --quiet --python .venv/bin/python -e ".[$extra]"
  else
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
      python=
      for name in python3 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
          python=$name
          break
        fi
      done
      [ -n "$python" ] || { echo "regjax needs Python 3.11 or newer" >&2; exit 2; }
      "$python" -m venv --clear .venv
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extra]"
  fi
  touch "$stamp"
fi
