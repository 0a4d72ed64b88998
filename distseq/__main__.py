"""python -m distseq"""

from distseq.cli.main import main

if __name__ == "__main__":
    main()
