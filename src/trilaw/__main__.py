"""`python -m trilaw` is the command `trilaw`."""

from trilaw.cli.main import main

if __name__ == "__main__":
    main()
