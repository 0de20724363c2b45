"""``python -m poleng_assets.cli`` is ``poleng``."""

from poleng_assets.cli.main import main

if __name__ == "__main__":
    main()
