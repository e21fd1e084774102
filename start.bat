@echo off
rem Starts Segue on Windows: the environment from the hashed lock file (once), then `segue up`.
setlocal
cd /d "%~dp0"
set VENV=.venv
if defined SEGUE_VENV set VENV=%SEGUE_VENV%
set PYTHON=%VENV%\Scripts\python.exe
if not exist "%PYTHON%" (
  py -3 -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>nul
  if errorlevel 1 (
    echo Segue needs Python 3.11 or newer: install it from python.org and try again.
    exit /b 1
  )
  echo Making a virtual environment in %VENV% ...
  py -3 -m venv "%VENV%" || exit /b 1
)
fc /b requirements.lock "%VENV%\segue-requirements.lock" >nul 2>&1
if errorlevel 1 (
  echo Installing what requirements.lock locks ...
  "%PYTHON%" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock || exit /b 1
  "%PYTHON%" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . || exit /b 1
  copy /y requirements.lock "%VENV%\segue-requirements.lock" >nul
)
"%PYTHON%" -m cli up %*
