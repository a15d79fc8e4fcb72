"""Memory beyond this process. Nothing here decides anything: lists come back as they were told, with their true times.

memory    none: what is known ends with the process
sqlite    a file: told at once, written a moment later and not on the event loop; lost and found again
told      what it was told and has not written yet
database  that file's tables, for one thread
codec     a list as bytes, checked, and sealed where there is a key
"""
