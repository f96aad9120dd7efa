"""The model of mm/: one file per Linux file, same base name, kernel names, plain functions.

No function here yields visibly: each access to shared state is a primitive, and each primitive is
a yield point. Files refer to one another by module (`mlock.mlock_vma_page`): it names the kernel
file, and import cycles work.
"""
