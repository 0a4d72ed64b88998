"""python -m distseq"""

from distseq.cli import main

main()
