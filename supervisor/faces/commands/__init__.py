"""The commands of ``fleet``: each reads its arguments and hands on to the rooms beside this folder."""
