"""The part of the packaging that pyproject.toml cannot say; everything else is there.

Twisted finds plugins as modules in directories called twisted/plugins on sys.path that have no __init__.py,
so that many distributions can share the one package. setuptools takes such a directory only when it is named
outright. And an editable install puts its directory on sys.path only when the source has one root
(`package_dir`): otherwise setuptools answers imports by name, and Twisted, which searches directories, does
not find the plugin.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["comfyproxy", "comfyproxy.*"]), "twisted.plugins"],
    package_dir={"": "."},
)
