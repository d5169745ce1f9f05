"""`python -m scaling.cli`: the command without its script."""

from scaling.cli.main import main

if __name__ == "__main__":
    main()
