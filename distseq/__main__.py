"""python -m distseq"""

from distseq.cli import main

if __name__ == "__main__":
    main()
