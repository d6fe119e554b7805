"""The examples of seeds 000, 001 and 002 that other systems were built on."""

# Seed 000

PUSH = """
{
  "name": "juan_canfield",
  "modality": "face",
  "embedding": [0.123, -0.456, ...],
  "source_node": "brain"
}
"""

LIST_IDENTITIES = "curl http://localhost:8000/api/v1/identity/"
GET_MANIFEST = "curl http://localhost:8000/api/v1/identity/names"
DELETE_AN_IDENTITY = "curl -X DELETE http://localhost:8000/api/v1/identity/old_person/face"

# Seed 001

SYNC = """
{
  "source_system": "alfred_catalog",
  "identities": [
    {"external_id": "42", "name": "John Smith", "action": "upsert"},
    {"external_id": "87", "name": "Jane Doe", "action": "upsert"},
    {"external_id": "15", "action": "delete"}
  ]
}
"""

INGEST = """
{
  "source_system": "alfred_catalog",
  "results": [
    {
      "external_id": "42",
      "name": "John Smith",
      "faces": [
        {"embedding": [0.12, -0.34, ...], "confidence": 0.98},
        {"embedding": [0.11, -0.33, ...], "confidence": 0.95}
      ]
    },
    {
      "external_id": "87",
      "name": "Jane Doe",
      "faces": [
        {"embedding": [0.22, -0.45, ...], "confidence": 0.91}
      ]
    }
  ]
}
"""

SYNC_ALL_LABELED_IDENTITIES = """
STUDIO_URL = "http://192.168.50.20:5050"

# Fetch all labeled people from Alfred's database
people = get_all_labeled_people()  # your Alfred DB query

payload = {
    "source_system": "alfred_catalog",
    "identities": [
        {"external_id": str(p.id), "name": p.name, "action": "upsert"}
        for p in people
    ]
}

resp = requests.post(f"{STUDIO_URL}/api/identities/sync", json=payload, timeout=30)
print(resp.json())
"""

HANDLE_A_RENAME = """
# When someone renames a person in Alfred's UI:
payload = {
    "source_system": "alfred_catalog",
    "identities": [
        {"external_id": "42", "name": "Jonathan Smith", "action": "upsert"}
    ]
}
requests.post(f"{STUDIO_URL}/api/identities/sync", json=payload)
"""

HANDLE_A_DELETION = """
# When someone deletes a person from Alfred:
payload = {
    "source_system": "alfred_catalog",
    "identities": [
        {"external_id": "42", "action": "delete"}
    ]
}
requests.post(f"{STUDIO_URL}/api/identities/sync", json=payload)
"""

SUBMIT_A_JOB = """
payload = {
    "job_type": "face_detect_embed",
    "config": {
        "source_system": "alfred_catalog",
        "photo_ids": ["photo_001", "photo_002", ...],
        # OR
        "batch_id": "batch_2026_02_25"
    }
}
requests.post(f"{STUDIO_URL}/api/training/submit", json=payload)
"""

PUSH_DIRECTLY = """
# Alfred already extracted embeddings from its photos
payload = {
    "source_system": "alfred_catalog",
    "results": [
        {
            "external_id": "42",
            "name": "John Smith",
            "faces": [
                {"embedding": embedding_vector.tolist(), "confidence": 0.98},
            ]
        }
    ]
}
requests.post(f"{STUDIO_URL}/api/identities/ingest-embeddings", json=payload)
"""

# Seed 002

GET_DELETED_CUSTOMERS = '''
def get_deleted_customers(self, since: str) -> List[str]:
    """Get list of face_ids deleted since timestamp"""
    response = requests.get(
        f"{self.base_url}/api/edge/sync",
        params={"since": since},
        headers=self._get_headers()
    )
    if response.ok:
        return response.json().get("deleted", [])
    return []
'''

REMOVE_FROM_LOCAL_CACHE = """
for face_id in deleted:
    # Remove from local cache
    visitor_id = int(face_id.replace("visitor_", ""))
    known_embeddings = [
        (vid, emb) for vid, emb in known_embeddings
        if vid != visitor_id
    ]
"""
