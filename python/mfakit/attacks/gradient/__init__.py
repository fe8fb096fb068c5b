"""The fixed-step gradient attack (appendix C.2)."""
