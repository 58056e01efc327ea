/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.client;

import io.stopover.trino.wire.PageBatch;
import org.apache.hc.core5.http.io.entity.AbstractHttpEntity;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;

import static java.util.Objects.requireNonNull;

/** A batch as a request body of known length that can be sent repeatedly. */
final class PageBatchEntity
        extends AbstractHttpEntity
{
    private static final String CONTENT_TYPE = "application/vnd.stopover.pages";

    private final PageBatch batch;

    PageBatchEntity(PageBatch batch)
    {
        super(CONTENT_TYPE, null);
        this.batch = requireNonNull(batch, "batch is null");
    }

    @Override
    public boolean isRepeatable()
    {
        return true;
    }

    @Override
    public long getContentLength()
    {
        return batch.frameBytes();
    }

    @Override
    public InputStream getContent()
    {
        throw new UnsupportedOperationException("a batch can only be written");
    }

    @Override
    public void writeTo(OutputStream out)
            throws IOException
    {
        batch.writeTo(out);
    }

    @Override
    public boolean isStreaming()
    {
        return false;
    }

    @Override
    public void close() {}
}
