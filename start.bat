@echo off
rem Starts Segue on Windows: the environment from the hashed lock file (once), then `segue up`.
rem Options go to `segue up`. SEGUE_PYTHON: the Python to make the environment with; SEGUE_VENV: where it lies (.venv).
setlocal
cd /d "%~dp0"
if not defined SEGUE_VENV set "SEGUE_VENV=.venv"
set "PYTHON=%SEGUE_VENV%\Scripts\python.exe"
set "MADE=%SEGUE_VENV%\made-from-requirements.lock"
set "WANTED=%TEMP%\segue-wanted-%RANDOM%.txt"

set "BASE="
if defined SEGUE_PYTHON set BASE="%SEGUE_PYTHON%"
if not defined BASE (
  py -3 -c "import sys; sys.exit(sys.version_info < (3, 11))" >nul 2>&1 && set "BASE=py -3"
)
if not defined BASE (
  python -c "import sys; sys.exit(sys.version_info < (3, 11))" >nul 2>&1 && set "BASE=python"
)
if not exist "%PYTHON%" (
  if not defined BASE (
    echo Segue needs Python 3.11 or newer and found none. Install it from python.org, or set SEGUE_PYTHON to its python.exe. 1>&2
    exit /b 1
  )
  echo Making a virtual environment in %SEGUE_VENV% ... 1>&2
  %BASE% -m venv "%SEGUE_VENV%" || exit /b 1
)

copy /b /y requirements.lock+pyproject.toml "%WANTED%" >nul || exit /b 1
fc /b "%WANTED%" "%MADE%" >nul 2>&1
if errorlevel 1 (
  echo Installing what requirements.lock locks ^(a minute, the first time^) ... 1>&2
  "%PYTHON%" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r requirements.lock || exit /b 1
  "%PYTHON%" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation -e . || exit /b 1
  copy /b /y "%WANTED%" "%MADE%" >nul
)
del "%WANTED%" >nul 2>&1

"%PYTHON%" -m cli up %*
