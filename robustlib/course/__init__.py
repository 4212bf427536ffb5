"""Coursework: release assignments, and grade what comes back, with Otter-Grader.

* ``sources``: the assignments in ``notebooks/assignments``, in Otter Assign's format
* ``release``: the student's notebook, the autograder and the solution, made from a source
* ``manifest``: what an assignment asks and what each test is worth, without any code of a test
* ``submissions``: reads what students handed in, and trusts none of it
* ``sandbox``: runs one notebook in a process of its own, with limits
* ``grading``: a folder of submissions to a table
* ``feedback``: one page a student

Grading runs the code of the students. The process that grades never does so itself, but a process
of the same account can do what that account can: use one that may be thrown away.
"""
